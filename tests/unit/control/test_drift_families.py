"""Verdicts as metrics: what an alert rule can rely on."""

from prometheus_client.parser import text_string_to_metric_families
from report_kit import reference, watched

from serving.control.fleet.exposition import Page
from serving.control.monitoring.drift_families import drift_families
from serving.drift.standing import Watched

REFERENCE = reference()


def scrape(*found: Watched) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, as Prometheus' own parser reads them."""
    page = Page(dict, lambda: drift_families(found)).render("")[0].decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_every_column_has_its_shift_and_its_certainty() -> None:
    """By version and role, with the figures of the report."""
    one = watched(REFERENCE)
    seen = scrape(one)

    for column in one.standing.drift.columns:
        place = (column.name, "m", "production", "v1")
        assert seen["sluice_drift_psi", *place] == column.psi_star
        assert seen["sluice_drift_q", *place] == column.q


def test_a_level_is_a_number_that_grows_with_what_is_at_stake() -> None:
    """0 nothing, 1 a column drifts, 2 somebody should look."""
    quiet = watched(REFERENCE, version="a", hours=[(2_000, 0, 0)])
    once = watched(REFERENCE, version="b", hours=[(2_000, 0, 0), (2_000, 12, 0)])
    twice = watched(REFERENCE, version="c", hours=[(2_000, 12, 0), (2_000, 12, 0)])
    seen = scrape(quiet, once, twice)

    assert [seen["sluice_drift_level", "m", "production", name] for name in "abc"] == [0, 1, 2]


def test_findings_and_rows_are_counted() -> None:
    """Of the window that was judged."""
    seen = scrape(watched(REFERENCE, hours=[(2_000, 0, 0.2)]))

    assert seen["sluice_data_quality_findings", "m", "production", "v1"] == 1
    assert seen["sluice_drift_window_rows", "m", "production", "v1"] == 1_980


def test_a_version_whose_traffic_ended_has_no_gauge() -> None:
    """A canary that was aborted must not keep an alert up for two days."""
    gone = watched(REFERENCE, hours=[(2_000, 12, 0), *([(0, 0, 0)] * 5)])

    assert scrape(gone) == {}
