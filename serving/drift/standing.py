"""How one version of a model stands now: everything a report page shows, as values. Pure."""

from collections.abc import Sequence

import msgspec

from serving.config.frozen_bins import Reference
from serving.config.monitoring import MonitoringConfig
from serving.drift.quality import Quality, assess
from serving.drift.report import DriftOptions, DriftReport, report
from serving.drift.windows import Stretch, windows_of

__all__ = ["Distribution", "ReferenceFacts", "Standing", "options_of", "standing"]


class ReferenceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What traffic is compared with."""

    source: str
    created: str
    rows: int


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """One column's bins: names, rows of the reference and of the last window in each."""

    name: str
    bins: list[str]
    reference: list[int]
    window: list[int]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A version in a role. Times are seconds since 1970."""

    model: str
    version: str
    role: str
    at: float
    reference: ReferenceFacts
    drift: DriftReport
    quality: Quality | None
    """None: no row was counted in the last window."""
    distributions: list[Distribution]
    """In the order of the report's columns."""
    rows_by_window: list[tuple[float, int]]
    """Start and rows of each window, oldest first."""


def options_of(monitoring: MonitoringConfig) -> DriftOptions:
    """What is worth telling, as the model's YAML says it."""
    prediction = monitoring.prediction
    return DriftOptions(
        alpha=monitoring.alpha,
        min_effect=monitoring.min_effect,
        min_rows=monitoring.min_rows,
        important=frozenset(monitoring.important),
        score=prediction.score if prediction is not None else "",
    )


def standing(
    *,
    model: str,
    version: str,
    role: str,
    reference: Reference,
    monitoring: MonitoringConfig,
    found: Sequence[Stretch],
    at: float,
) -> Standing:
    """Judge the last window of a version in the light of those before it.

    Args:
        model: by name.
        version: of the model.
        role: that it had.
        reference: the frozen bins.
        monitoring: what is worth telling.
        found: windows of this reference's counts, oldest first.
        at: now.
    """
    options = options_of(monitoring)
    drift = report(reference, windows_of(found), options)
    last = found[-1].total if found else None
    layout = found[-1].key.layout if found else None
    quality = None
    distributions = []
    if layout is not None and last is not None:
        dispersion = max((column.overdispersion for column in drift.columns), default=1.0)
        quality = assess(
            reference, layout.traffic(last), alpha=options.alpha, overdispersion=dispersion
        )
        counted = layout.by_column(last)
        distributions = [
            Distribution(
                name=column.name,
                bins=reference.columns[column.name].names,
                reference=list(reference.columns[column.name].counts),
                window=counted[column.name].tolist(),
            )
            for column in drift.columns
        ]
    return Standing(
        model=model,
        version=version,
        role=role,
        at=at,
        reference=ReferenceFacts(
            source=reference.source, created=reference.created, rows=reference.rows
        ),
        drift=drift,
        quality=quality,
        distributions=distributions,
        rows_by_window=[(one.start, int(one.total[0])) for one in found],
    )
