"""Every answer is in the log, or counted among those that are not, whatever goes wrong.

logged + sampled out + dropped by reason = served
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import disk_kit
import gateway_kit
import load_kit
import log_kit
import onnx_models
import pytest
from prometheus_client.parser import text_string_to_metric_families
from waiting_kit import until

BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [21]}]}
PATH = "/v2/models/m/infer"
DROPPED = ("buffer_full", "disk_full", "disk_error", "unwritable", "crash")


def gateway(folder: Path, *, sample: float = 1.0, **log: Any) -> None:
    """One model on two workers, logged."""
    gateway_kit.write_gateway(
        folder, engine={"kind": "local", "workers": 2}, log={"min_free": "0B", **log}
    )
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.doubler()}, {}, log={"sample": sample})


def outcomes(running: gateway_kit.Running) -> dict[str, int]:
    """What `/metrics` says became of rows."""
    text = running.ask(f"{running.admin}/metrics")[1]
    for family in text_string_to_metric_families(text):
        if family.name == "sluice_log_rows":
            return {sample.labels["outcome"]: int(sample.value) for sample in family.samples}
    return {}


def adds_up(counts: dict[str, int]) -> bool:
    """Whether every row offered is accounted for."""
    known = counts.get("logged", 0) + counts.get("sampled_out", 0)
    known += sum(counts.get(reason, 0) for reason in DROPPED)
    return counts.get("offered", 0) == known


def settled(
    running: gateway_kit.Running, also: Callable[[dict[str, int]], bool] = lambda _: True
) -> dict[str, int]:
    """Wait until nothing is held; the counts then."""
    give_up = time.monotonic() + 30
    while True:
        counts = outcomes(running)
        if adds_up(counts) and also(counts):
            return counts
        assert time.monotonic() < give_up, counts
        time.sleep(0.1)


def logged_rows(folder: Path) -> int:
    """Rows that can be read."""
    return len(log_kit.rows_of(folder)) + len(log_kit.parquet_rows(folder))


def test_a_graceful_stop_loses_no_row(tmp_path: Path, record_property: Any) -> None:
    """What clients were answered is in the log, to the last row."""
    folder = tmp_path / "gateway"
    gateway(folder, flush="5s")
    with gateway_kit.running(folder) as running:
        with load_kit.load(running.http, PATH, BODY, rate=200) as load:
            time.sleep(3)
        data = running.data

    record_property("seen", f"{len(load.outcomes)} requests, {logged_rows(data)} rows")
    assert load.failures == []
    assert logged_rows(data) == len(load.outcomes)


def test_kill_9_costs_a_second_at_most_and_it_is_counted(
    tmp_path: Path, record_property: Any
) -> None:
    """The rows that were not written are known by number; all others can be read."""
    folder = tmp_path / "gateway"
    gateway(folder, segment_age="2s")
    with gateway_kit.running(folder) as running:
        with load_kit.load(running.http, PATH, BODY, rate=200) as load:
            time.sleep(2)
            os.kill(running.pids("worker-0")[0], signal.SIGKILL)
            time.sleep(2)
            os.kill(running.pids("worker-1")[0], signal.SIGKILL)
            time.sleep(2)
        answered = len(load.outcomes) - len(load.failures)
        counts = settled(running, lambda c: c["offered"] >= answered and "crash" in c)
        data = running.data
    rows = logged_rows(data)

    record_property(
        "seen",
        f"{answered} answered, {counts['offered']} offered, {rows} rows, {counts['crash']} crash",
    )
    assert answered <= counts["offered"] <= len(load.outcomes)
    assert rows == counts["logged"]
    assert counts["offered"] == rows + counts["crash"]
    assert counts["crash"] <= 2 * 200  # two workers at no more than the whole rate, one second each


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte."""
    with disk_kit.small_disk(tmp_path / "disk") as place:
        yield place


def test_a_full_disk_costs_rows_and_no_request(
    tmp_path: Path, small_disk: Path, record_property: Any
) -> None:
    """Serving goes on; with room again so does the log."""
    folder = tmp_path / "gateway"
    (small_disk / "ballast").write_bytes(b"x" * 900_000)
    gateway(folder, path=str(small_disk / "log"), flush="50ms")
    with gateway_kit.running(folder) as running:
        with load_kit.load(running.http, PATH, BODY, rate=200) as load:
            until(lambda: outcomes(running).get("disk_full", 0) > 100)
            full = outcomes(running)
            (small_disk / "ballast").unlink()
            until(lambda: outcomes(running)["logged"] > full["logged"] + 100)
        counts = settled(running, lambda c: c["offered"] == len(load.outcomes))
    rows = logged_rows(small_disk)

    record_property("seen", f"{len(load.outcomes)} requests, {counts}, {rows} rows")
    assert load.failures == []
    assert counts["disk_full"] > 100
    assert rows == counts["logged"]


def test_more_than_the_buffer_holds_costs_rows_and_no_request(
    tmp_path: Path, record_property: Any
) -> None:
    """They are dropped by the number; sampling is counted apart."""
    folder = tmp_path / "gateway"
    gateway(folder, buffer="20KiB", flush="500ms", sample=0.5)
    with gateway_kit.running(folder) as running:
        with load_kit.load(running.http, PATH, BODY, rate=200) as load:
            time.sleep(3)
        counts = settled(running, lambda c: c["offered"] == len(load.outcomes))
        data = running.data
    rows = logged_rows(data)

    record_property("seen", f"{len(load.outcomes)} requests, {counts}")
    assert load.failures == []
    assert counts["buffer_full"] > 0
    assert counts["sampled_out"] > 0
    assert rows == counts["logged"] > 0
