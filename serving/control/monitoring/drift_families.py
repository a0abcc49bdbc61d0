"""What control concluded of drift, in Prometheus' shape: for charts, and for alerts on levels."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from serving.drift.standing import Watched
from serving.drift.verdict import LEVELS

__all__ = ["drift_families"]

_PLACE: Final = ("model", "version", "role")


def drift_families(watched: Iterable[Watched]) -> Iterator[Metric]:
    """Gauges of every version in each of its roles, of its last window, while it has traffic.

    Label values are of the configuration and of the reference, so there are at most as many
    children as versions times roles times columns.
    """
    psi = GaugeMetricFamily(
        "sluice_drift_psi",
        "Shift of a column against the reference (PSI without the noise of few rows).",
        labels=(*_PLACE, "column"),
    )
    q = GaugeMetricFamily(
        "sluice_drift_q",
        "Share of false findings if a column's shift and all surer ones are believed.",
        labels=(*_PLACE, "column"),
    )
    level = GaugeMetricFamily(
        "sluice_drift_level",
        "Verdict: 0 none, 1 inform, 2 alert, 3 trigger.",
        labels=_PLACE,
    )
    rows = GaugeMetricFamily(
        "sluice_drift_window_rows", "Rows of the window that was judged.", labels=_PLACE
    )
    findings = GaugeMetricFamily(
        "sluice_data_quality_findings",
        "Shares of rows that are worse than the reference's.",
        labels=_PLACE,
    )
    for one in watched:
        standing = one.standing
        if not standing.is_current:
            continue
        place = (standing.model, standing.version, standing.role)
        level.add_metric(place, LEVELS.index(one.verdict.level))
        rows.add_metric(place, standing.drift.rows)
        quality = standing.quality
        findings.add_metric(place, len(quality.findings) if quality is not None else 0)
        for column in standing.drift.columns:
            psi.add_metric((*place, column.name), column.psi_star)
            q.add_metric((*place, column.name), column.q)
    yield from (psi, q, level, rows, findings)
