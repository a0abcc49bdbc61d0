import errno
import os
from pathlib import Path

import pytest

from serving import metrics, metrics_folder


@pytest.fixture
def worker(tmp_path: Path) -> metrics.MetricsFile:
    """One worker's counters."""
    return metrics.MetricsFile(tmp_path / "worker-0.metrics")


def test_another_process_reads_what_was_counted(worker: metrics.MetricsFile) -> None:
    """Numbers are in the file as soon as they are counted, without a flush."""
    worker.counter("sluice_rejected_total", model="m", reason="overload").inc(3)
    worker.histogram("sluice_batch_rows", model="m", version="v1").observe(4)

    samples = metrics.read(worker.path)

    assert samples["sluice_rejected_total", ("m", "overload")] == [3.0]
    buckets = samples["sluice_batch_rows", ("m", "v1")]
    assert buckets[2] == 1.0
    assert buckets[-1] == 4.0


def test_the_same_labels_are_the_same_child(worker: metrics.MetricsFile) -> None:
    """Asking twice for one child counts in one place."""
    for _ in range(2):
        worker.counter("sluice_rejected_total", model="m", reason="x").inc()

    assert metrics.read(worker.path)["sluice_rejected_total", ("m", "x")] == [2.0]


def test_totals_add_counters_and_keep_the_largest_of_max_gauges(tmp_path: Path) -> None:
    """Two workers' counters add up; the revision gauge is the newest, not the sum."""
    workers = [metrics.MetricsFile(tmp_path / name) for name in ("a", "b")]
    for revision, one in enumerate(workers, start=7):
        one.gauge("sluice_route_revision").set(revision)
        one.gauge("sluice_in_flight_requests").inc(2)

    total = metrics.total(metrics.read(one.path) for one in workers)

    assert total["sluice_route_revision", ()] == [8.0]
    assert total["sluice_in_flight_requests", ()] == [4.0]


def test_what_does_not_fit_into_a_file_goes_into_another(tmp_path: Path) -> None:
    """Version after version, for as long as a worker lives: none is missing from the sums."""
    small = metrics.MetricsFile(tmp_path / "w.metrics", capacity=4096)
    for number in range(200):
        small.counter("sluice_rejected_total", model=f"m{number}", reason="x").inc()
    small.counter("sluice_rejected_total", model="m0", reason="x").inc()

    samples = metrics_folder.totals(tmp_path)
    assert len(samples) == 200
    assert samples["sluice_rejected_total", ("m0", "x")] == [2.0]
    assert samples["sluice_rejected_total", ("m199", "x")] == [1.0]
    assert len(list(tmp_path.glob("w*.metrics"))) > 1


def test_the_files_of_a_dead_process_are_folded_once_each(tmp_path: Path) -> None:
    """Also if it had several."""
    small = metrics.MetricsFile(tmp_path / "w.metrics", capacity=4096)
    for number in range(100):
        small.counter("sluice_rejected_total", model=f"m{number}", reason="x").inc()
    files = len(list(tmp_path.glob("*.metrics")))
    small.close()

    assert metrics_folder.fold(tmp_path, owned=lambda _: False) == files > 1
    assert sum(slots[0] for slots in metrics_folder.totals(tmp_path).values()) == 100


def test_full_files_lose_detail_and_never_raise(tmp_path: Path) -> None:
    """Past the capacity of the last one nothing grows; counting goes on harmlessly."""
    small = metrics.MetricsFile(tmp_path / "small", capacity=4096, files=1)
    for number in range(200):
        small.counter("sluice_rejected_total", model=f"m{number}", reason="x").inc()

    samples = metrics.read(small.path)

    assert 0 < len(samples) < 200
    assert all(values == [1.0] for values in samples.values())


def test_a_wrong_label_is_refused(worker: metrics.MetricsFile) -> None:
    """A typo in a label is a mistake in our code, found at compile time of the table."""
    with pytest.raises(KeyError):
        worker.counter("sluice_rejected_total", model="m", cause="x")


def test_a_file_that_is_not_ours_gives_no_samples(tmp_path: Path) -> None:
    """An empty file or someone else's is no reason to fail a scrape."""
    path = tmp_path / "foreign"
    path.write_bytes(b"")
    assert metrics.read(path) == {}
    path.write_bytes(b"not a metrics file at all" * 10)
    assert metrics.read(path) == {}


def test_a_full_disk_costs_the_file_and_not_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room for the whole file counting goes on in memory; no half of a file is left."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    worker = metrics.MetricsFile(tmp_path / "worker-0.metrics")
    counter = worker.counter("sluice_rejected_total", model="m", reason="x")
    counter.inc()

    assert counter.value == 1.0
    assert not worker.path.exists()
    worker.close()


def test_the_whole_file_has_its_room_from_the_start(worker: metrics.MetricsFile) -> None:
    """A hole would be a SIGBUS on a disk that has filled up since."""
    status = worker.path.stat()

    assert status.st_blocks * 512 >= status.st_size
