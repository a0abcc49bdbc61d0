"""Which plan a command means: of a configuration directory, or of what a gateway here serves."""

from pathlib import Path

import msgspec

from serving.cli.output import CommandError
from serving.cli.where import Where
from serving.config.load import load_directory
from serving.config.problems import did_you_mean
from serving.config.schema import ModelConfig, RolloutConfig
from serving.config.snapshot_codec import decode_snapshot
from serving.errors import InvalidConfig

__all__ = ["Planned", "planned"]

_TENTHS = 10
_MOST_CLASSES = 20


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A model's plan."""

    model: str
    config: ModelConfig
    rollout: RolloutConfig
    directory: Path | None = None
    """Where it was read; None: from a data directory."""

    @property
    def bins(self) -> tuple[float, ...]:
        """How predictions may be spread: evenly over the classes, or over tenths of the scores."""
        version = self.config.versions.get(self.rollout.canary)
        labels = len(version.labels) if version is not None and version.labels else 0
        prediction = self.config.monitoring.prediction if self.config.monitoring else None
        scored = prediction is not None and bool(prediction.score)
        number = labels if 1 < labels <= _MOST_CLASSES and not scored else _TENTHS
        return (1 / number,) * number


def planned(
    target: str, *, model: str | None, directory: Path | None, data: Path | None
) -> Planned:
    """Find the plan.

    Args:
        target: a model, or a configuration directory.
        model: of a directory, if several have a plan.
        directory: configuration of the model.
        data: data directory of a gateway here.

    Raises:
        CommandError: there is no such model, or it has no `rollout`.
        InvalidConfig: the directory has mistakes.
    """
    if directory is None and Path(target).is_dir():
        directory, name = Path(target), model
    else:
        name = target
    models = _served(data) if directory is None else load_directory(directory).configuration.models
    name = name if name is not None else _only(models, directory)
    config = models.get(name)
    if config is None:
        hint = did_you_mean(name, models) or f"there is {', '.join(models) or 'none'}"
        raise CommandError(f"there is no model `{name}`", hint)
    if config.rollout is None:
        raise CommandError(
            f"`{name}` has no plan", f"write one under `rollout:` in models/{name}.yaml"
        )
    return Planned(model=name, config=config, rollout=config.rollout, directory=directory)


def _only(models: dict[str, ModelConfig], directory: Path | None) -> str:
    with_plan = [name for name, config in models.items() if config.rollout is not None]
    if len(with_plan) == 1:
        return with_plan[0]
    if not with_plan:
        raise CommandError(
            f"no model of {directory} has a plan", "write one under `rollout:` in a model's file"
        )
    raise CommandError(
        f"{len(with_plan)} models of {directory} have a plan",
        f"name one: {' or '.join(f'--model {name}' for name in with_plan)}",
    )


def _served(data: Path | None) -> dict[str, ModelConfig]:
    found = Where(data=data).data_directory()
    if found is None:
        raise CommandError(
            "there is no gateway's data directory here",
            "name the configuration directory, or give --config or --data",
        )
    try:
        return decode_snapshot((found / "snapshot.json").read_bytes()).models
    except (OSError, InvalidConfig) as error:
        raise CommandError(
            f"what the gateway of {found} serves cannot be read", "--config DIR names a plan"
        ) from error
