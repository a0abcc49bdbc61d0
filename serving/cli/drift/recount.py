"""`sluice drift recount`: a time of the prediction log, counted into a reference's bins again."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from serving.cli.duration import read_duration
from serving.cli.log.place import LogPlace, log_options
from serving.cli.output import CommandError, Output, output_options

if TYPE_CHECKING:
    from serving.config.frozen_bins import Reference
    from serving.config.load import Loaded
    from serving.config.schema import ModelConfig, MonitoringConfig
    from serving.drift.standing import Watched
    from serving.drift.windows import Part

__all__ = ["Recounted", "recount"]

_PATH: Final = click.Path(path_type=Path)
_MOST_WINDOWS: Final = 200


class Recounted(msgspec.Struct, kw_only=True):
    """What `--json` prints. Times are seconds since 1970."""

    model: str
    since: float
    until: float
    rows: int
    watched: list[Any]
    """`serving.drift.standing.Watched`, as `sluice drift MODEL --json` has them."""
    damages: list[str] = []


@click.command(short_help="Judge a time of the log again, such as with another reference.")
@click.argument("model")
@click.option(
    "--config", "root", metavar="DIR", type=_PATH, default=".", help="Configuration.  [here]"
)
@click.option(
    "--last",
    "seconds",
    callback=read_duration,
    default="24h",
    help="How far back from now.  [24h]",
)
@click.option("--reference", metavar="FILE", type=_PATH, help="Another than the model's own.")
@log_options
@output_options
def recount(
    model: str,
    *,
    root: Path,
    seconds: float,
    reference: Path | None,
    place: LogPlace,
    output: Output,
) -> None:
    """Count MODEL's rows of the prediction log into a reference's bins, and judge them.

    What workers counted is of the reference they had. This counts the rows themselves: those from
    before a reference was there, or into a new one before it is applied. No gateway need run. Rows
    that sampling left out are missing; shares, which are compared, stay the same.

    \b
    Examples:
      sluice drift recount employment --last 1h --config configs/demo --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.drift.tables import verdicts
    from serving.config.load import load_directory
    from serving.drift.columns import feature_columns
    from serving.drift.recounting import Recount
    from serving.drift.sources import log_tables
    from serving.drift.windows import BLOCKS

    loaded = load_directory(root)
    config, monitoring = _model(loaded, model)
    frozen = _reference(loaded, model, reference)
    view_of = {
        name: column.view
        for name, column in feature_columns(config, loaded.configuration.views).items()
    }
    window = float(monitoring.window)
    now = time.time()
    since = now - min(seconds, _MOST_WINDOWS * window)
    counting = Recount(frozen, view_of, window / BLOCKS)
    damages: list[str] = []
    for table in log_tables(place.log, model, counting.needs, since, damages):
        counting.add(table)
    parts = [part for part in counting.parts() if part.end > since]
    answer = Recounted(
        model=model,
        since=since,
        until=now,
        rows=sum(int(counts[0]) for part in parts for counts in part.counts.values()),
        watched=_judged(config, frozen, monitoring, parts, view_of),
        damages=damages,
    )
    output.answer(
        answer,
        lambda: (
            verdicts(answer.watched)
            if answer.watched
            else f"{model}: the log holds no answer of this time"
        ),
    )
    for words in damages:
        output.note(words)


def _model(loaded: "Loaded", model: str) -> "tuple[ModelConfig, MonitoringConfig]":
    from serving.config.problems import did_you_mean

    models = loaded.configuration.models
    if model not in models:
        raise CommandError(
            f"there is no model `{model}` in {loaded.root}", did_you_mean(model, models)
        )
    monitoring = models[model].monitoring
    if monitoring is None:
        raise CommandError(
            f"`{model}` has no `monitoring`", "its `window` and `alpha` say how to judge"
        )
    return models[model], monitoring


def _reference(loaded: "Loaded", model: str, file: Path | None) -> "Reference":
    from serving.config.frozen_bins import decode_reference
    from serving.config.load import resolve_references
    from serving.errors import InvalidConfig

    path = file or resolve_references(loaded).get(model)
    if path is None:
        raise CommandError(
            f"`{model}` has no reference",
            "`--reference FILE` names one; `sluice drift freeze` makes it",
        )
    try:
        return decode_reference(path.read_bytes())
    except (InvalidConfig, OSError) as error:
        words = getattr(error, "strerror", None) or error
        raise CommandError(f"the reference {path.name} cannot be used: {words}") from error


def _judged(
    model: "ModelConfig",
    frozen: "Reference",
    monitoring: "MonitoringConfig",
    parts: "Sequence[Part]",
    features: Collection[str],
) -> "list[Watched]":
    from serving.drift.standing import Watched, standing
    from serving.drift.verdict import Evidence, judge
    from serving.drift.windows import stretches

    watched = []
    for key in sorted(
        {key for part in parts for key in part.counts}, key=lambda key: (key.version, key.role)
    ):
        source = model.versions.get(key.version)
        own = not frozen.digests or (
            source.sha256 in frozen.digests.values() if source else key.version in frozen.digests
        )
        one = standing(
            model=model.model,
            version=key.version,
            role=key.role,
            reference=frozen,
            monitoring=monitoring,
            found=stretches(parts, key, float(monitoring.window)),
            at=parts[-1].end,
            foreign=[] if own else [name for name in frozen.columns if name not in features],
        )
        verdict = judge(Evidence(drift=one.drift, quality=one.quality))
        watched.append(Watched(standing=one, verdict=verdict))
    return watched
