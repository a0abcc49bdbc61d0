"""How one version of a model stands now: everything a report page shows, as values. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from serving.config.frozen_bins import ColumnKind, Reference
from serving.config.schema import MonitoringConfig
from serving.config.snapshot import StagedVersion
from serving.drift.options import drift_options
from serving.drift.quality import Quality, assess
from serving.drift.report import DriftOptions, DriftReport, joined, report
from serving.drift.verdict import Verdict
from serving.drift.windows import Stretch, windows_of

__all__ = ["Distribution", "ReferenceFacts", "Standing", "Watched", "foreign_outputs", "standing"]


_LATELY: Final = 3
"""Windows without a row after which a version is nobody's concern any more."""


class ReferenceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What traffic is compared with."""

    source: str
    created: str
    rows: int


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """One column's bins: names, rows of the reference and of the last window in each.

    The first `special` bins are for what is no ordinary value (missing, new …).
    """

    name: str
    kind: ColumnKind
    special: int
    bins: list[str]
    reference: list[int]
    window: list[int]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A version in a role. Times are seconds since 1970."""

    model: str
    version: str
    role: str
    at: float
    window_seconds: float
    options: DriftOptions
    """What counts as worth telling."""
    reference: ReferenceFacts
    drift: DriftReport
    quality: Quality | None
    """None: no row was counted in the last window."""
    distributions: list[Distribution]
    """In the order of the report's columns; then those that are not compared."""
    not_compared: list[str]
    """Outputs that the reference has of another model file: shown, and not judged."""
    rows_by_window: list[tuple[float, int]]
    """Start and rows of each stretch of `window_seconds`, oldest first. The report's windows are
    longer where a stretch had too few rows."""

    @property
    def is_current(self) -> bool:
        """Whether there was traffic lately: a canary that is gone has drifted long ago."""
        return self.drift.end is not None and self.at - self.drift.end <= _LATELY * (
            self.window_seconds
        )


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A version in a role, with what was concluded."""

    standing: Standing
    verdict: Verdict


def foreign_outputs(
    reference: Reference, staged: Mapping[str, StagedVersion], version: str
) -> list[str]:
    """Columns of the reference that are outputs of another model file than the version's.

    Args:
        reference: whose `digests` say whose outputs it has; if it has none, nobody knows, and
            everything is compared.
        staged: the model's versions.
        version: whose traffic is judged; it need not be there any more.
    """
    known = staged.get(version)
    own = known.sha256 in reference.digests.values() if known else version in reference.digests
    if own or not reference.digests:
        return []
    outputs = {tensor.name for one in staged.values() for tensor in one.signature.outputs}
    return [name for name in reference.columns if name.partition("[")[0] in outputs]


def standing(
    *,
    model: str,
    version: str,
    role: str,
    reference: Reference,
    monitoring: MonitoringConfig,
    found: Sequence[Stretch],
    at: float,
    foreign: Collection[str] = (),
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
        foreign: columns that the reference has of another model file's outputs. Two models score
            differently without anything having drifted.
    """
    options = drift_options(monitoring)
    windows = windows_of(found)
    columns = {name: one for name, one in reference.columns.items() if name not in foreign}
    compared = msgspec.structs.replace(reference, columns=columns)
    drift = report(compared, windows, options)
    quality = None
    distributions = []
    if found:
        # Of the same rows as the report: a window with few rows was joined with those before.
        start = joined(windows, options.min_rows)[-1].start
        last = sum((one.total for one in found[:-1] if one.start >= start), found[-1].total)
        layout = found[-1].key.layout
        dispersion = max((column.overdispersion for column in drift.columns), default=1.0)
        quality = assess(
            compared, layout.traffic(last), alpha=options.alpha, overdispersion=dispersion
        )
        counted = layout.by_column(last)
        shown = [column.name for column in drift.columns]
        distributions = [
            Distribution(
                name=name,
                kind=reference.columns[name].kind,
                special=len(reference.columns[name].special),
                bins=reference.columns[name].names,
                reference=list(reference.columns[name].counts),
                window=counted[name].tolist(),
            )
            for name in (*shown, *(one for one in foreign if one in counted))
        ]
    return Standing(
        model=model,
        version=version,
        role=role,
        at=at,
        window_seconds=float(monitoring.window),
        options=options,
        reference=ReferenceFacts(
            source=reference.source, created=reference.created, rows=reference.rows
        ),
        drift=drift,
        quality=quality,
        distributions=distributions,
        not_compared=sorted(foreign),
        rows_by_window=[(one.start, int(one.total[0])) for one in found],
    )
