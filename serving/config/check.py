"""Say everything that is wrong with a configuration: read, look at the files, judge.

    loaded = require_valid(Path("configs/demo"))      # or raises InvalidConfig

The judging itself is pure and lives in `serving.config.rules`. What a model file contains is
not looked at here, only its digest: see `serving.models.artifact` and `check_signatures`.
"""

from pathlib import Path

from serving.config.facts import Facts, gather
from serving.config.load import Loaded, load_directory
from serving.config.problems import Problem, in_file_order, raise_errors
from serving.config.rules.gateway import check_gateway
from serving.config.rules.models import check_models
from serving.config.rules.monitoring import check_monitoring
from serving.config.rules.overrides import check_overrides
from serving.config.rules.retraining import check_retraining
from serving.config.rules.rollout import check_rollouts
from serving.config.rules.signatures import check_signatures
from serving.config.rules.views import check_views

__all__ = ["check", "check_signatures", "require_valid"]


def check(loaded: Loaded, facts: Facts, *, insecure: bool = False) -> list[Problem]:
    """Judge a configuration that could be read; errors and warnings, in file order.

    Pure: `facts` holds what was found on disk. `insecure` turns the refusal of unprotected
    listeners beyond loopback into warnings.
    """
    gateway = loaded.configuration.gateway
    return in_file_order(
        [
            *check_gateway(gateway, loaded.sources, facts, insecure=insecure),
            *check_models(loaded, facts),
            *check_overrides(loaded, facts),
            *check_views(loaded, facts),
            *check_monitoring(loaded, facts),
            *check_retraining(loaded, facts),
            *check_rollouts(loaded, facts),
        ]
    )


def require_valid(
    root: Path, *, insecure: bool = False, artifacts: bool = True
) -> tuple[Loaded, list[Problem]]:
    """Read and check a directory.

    Args:
        root: the configuration directory.
        insecure: whether unprotected listeners were forced by name.
        artifacts: whether model files must be there with their digest.

    Returns:
        The configuration, and warnings.

    Raises:
        InvalidConfig: with every problem found, if one of them is an error.
    """
    loaded = load_directory(root)
    problems = check(loaded, gather(loaded, artifacts=artifacts), insecure=insecure)
    raise_errors(problems)
    return loaded, problems
