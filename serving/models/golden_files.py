"""Golden examples of a whole configuration."""

from collections.abc import Mapping
from pathlib import Path

from serving.config.load import Loaded, resolve_golden
from serving.config.problems import Problem
from serving.errors import InvalidArtifact
from serving.models.artifact import check_golden

__all__ = ["golden_problems"]


def golden_problems(loaded: Loaded, paths: Mapping[tuple[str, str], Path]) -> list[Problem]:
    """Run the golden examples of every version that has some. Blocks.

    Args:
        loaded: the configuration.
        paths: model files by (model, version); versions without one are left out.
    """
    problems = []
    for (model, version), examples in resolve_golden(loaded).items():
        path = paths.get((model, version))
        if path is None:
            continue
        sha256 = loaded.configuration.models[model].versions[version].sha256
        try:
            check_golden(path, sha256, examples)
        except InvalidArtifact as error:
            place = ("versions", version, "golden")
            problems.append(loaded.sources.problem(loaded.model_files[model], place, error.message))
    return problems
