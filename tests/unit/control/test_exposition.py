from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.config.keys import WorkerReport
from serving.control.fleet.exposition import STATES, Page, own_families
from serving.metric_families import FAMILIES
from serving.metrics import MetricsFile
from serving.metrics_folder import fold, totals


def scrape(folder: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The page, read by Prometheus' own parser."""
    body, content_type = Page(lambda: totals(folder), lambda: ()).render("")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def labelled(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """A sample's name and labels."""
    return name, frozenset(labels.items())


def test_every_family_appears_with_its_labels_and_kind(tmp_path: Path) -> None:
    """A sample of each family in the table comes out under its own name."""
    file = MetricsFile(tmp_path / "worker-0-1-1.metrics")
    for name, family in FAMILIES.items():
        labels = {label: f"a-{label}" for label in family.labels}
        if family.kind == "histogram":
            file.histogram(name, **labels).observe(1.0)
        elif family.kind == "counter":
            file.counter(name, **labels).inc(3)
        else:
            file.gauge(name, **labels).set(3)

    seen = scrape(tmp_path)

    for name, family in FAMILIES.items():
        labels = {label: f"a-{label}" for label in family.labels}
        if family.kind == "histogram":
            assert seen[labelled(f"{name}_count", **labels)] == 1
        else:
            assert seen[labelled(name, **labels)] == 3
    file.close()


def test_histogram_buckets_are_cumulative(tmp_path: Path) -> None:
    """Each bucket counts what is at most its bound; the sum and the count are right."""
    file = MetricsFile(tmp_path / "worker-0-1-1.metrics")
    histogram = file.histogram("sluice_batch_rows", model="m", version="v")
    for rows in (1, 2, 2, 300):
        histogram.observe(rows)

    seen = scrape(tmp_path)

    label = {"model": "m", "version": "v"}
    assert seen[labelled("sluice_batch_rows_bucket", le="1.0", **label)] == 1
    assert seen[labelled("sluice_batch_rows_bucket", le="2.0", **label)] == 3
    assert seen[labelled("sluice_batch_rows_bucket", le="256.0", **label)] == 3
    assert seen[labelled("sluice_batch_rows_bucket", le="+Inf", **label)] == 4
    assert seen[labelled("sluice_batch_rows_count", **label)] == 4
    assert seen[labelled("sluice_batch_rows_sum", **label)] == 305
    file.close()


def test_a_scrape_is_the_same_before_and_after_a_worker_is_folded(tmp_path: Path) -> None:
    """A worker's death shows in no counter."""
    for number in range(3):
        file = MetricsFile(tmp_path / f"worker-{number}-1-1.metrics")
        file.counter("sluice_rejected_total", model="m", reason="overload").inc(number + 1)
        file.close()
    before = scrape(tmp_path)
    assert fold(tmp_path, lambda _: False) == 3

    assert scrape(tmp_path) == before
    assert before[labelled("sluice_rejected_total", model="m", reason="overload")] == 6


def test_openmetrics_is_answered_to_those_who_ask(tmp_path: Path) -> None:
    """Prometheus asks for OpenMetrics and gets it."""
    body, content_type = Page(lambda: totals(tmp_path), lambda: ()).render(
        "application/openmetrics-text"
    )

    assert content_type.startswith("application/openmetrics-text")
    assert body == b"# EOF\n"


@pytest.mark.parametrize("state", STATES)
def test_workers_are_counted_by_state(tmp_path: Path, state: str) -> None:
    """Every state has a line, also those nobody is in."""
    report = WorkerReport(worker="w", state="ready", revision=1, reported_at=1.0)
    page = Page(
        lambda: totals(tmp_path),
        lambda: own_families(
            version="0.1",
            revision=7,
            workers=[(report, state), (report, state)],
            store_up=False,
            feature_writes={("profile", "push", "written"): 3},
            stream_lag={"profile": 4},
        ),
    )
    text = page.render("")[0].decode()

    for one in STATES:
        assert f'sluice_workers{{state="{one}"}} {2.0 if one == state else 0.0}\n' in text
    assert "sluice_configuration_revision 7.0\n" in text
    labels = 'outcome="written",source="push",view="profile"'
    assert f"sluice_feature_writes_total{{{labels}}} 3.0\n" in text
    assert 'sluice_feature_stream_lag{view="profile"} 4.0\n' in text
    assert "sluice_store_up 0.0\n" in text
    assert 'sluice_build_info{version="0.1"} 1.0\n' in text
