"""A node's numbers on their way to control on another node."""

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_kit import ValkeyServer

from serving.config.keys import METRICS_KEY, NODE_VARIABLE, WorkerReport, node_name
from serving.metric_families import FAMILIES
from serving.metrics import MetricsFile
from serving.metrics_exchange import decode, encode
from serving.metrics_folder import outliving, totals
from serving.worker.node_metrics import NodeMetrics

LOG = logging.getLogger("test")


def counted(folder: Path, rows: int, name: str = "worker-0-1-1") -> MetricsFile:
    """A process's file with some numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    file = MetricsFile(folder / f"{name}.metrics")
    file.counter("sluice_inference_rows_total", model="m", version="v1").inc(rows)
    file.histogram("sluice_batch_rows", model="m", version="v1").observe(3)
    file.gauge("sluice_in_flight_requests").set(2)
    return file


def test_numbers_arrive_as_they_were_sent(tmp_path: Path) -> None:
    """Counters, histograms, gauges."""
    with_numbers = counted(tmp_path, 5)
    samples = totals(tmp_path)

    assert decode(encode(samples)) == samples
    assert len(samples) == 3
    with_numbers.close()


def test_what_a_node_held_it_holds_no_more(tmp_path: Path) -> None:
    """A node that has gone keeps what it counted."""
    counted(tmp_path, 5).close()

    kept = {name for name, _ in outliving(totals(tmp_path))}

    assert kept == {"sluice_inference_rows_total", "sluice_batch_rows"}


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    """Whatever is in the store."""
    assert all(name in FAMILIES for name, _ in decode(content))


def test_families_and_shapes_of_another_release_are_left_out() -> None:
    """They could not be added to ours."""
    good = ("sluice_inference_rows_total", ("m", "v1"))
    others = {
        ("sluice_of_tomorrow_total", ()): [1.0],
        ("sluice_batch_rows", ("m", "v1")): [1.0],
    }

    assert decode(encode({good: [7.0], **others})) == {good: [7.0]}


def test_workers_of_two_nodes_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although both are called worker-0; a node may be given its name."""
    report = {"worker": "worker-0", "state": "ready", "revision": 1, "reported_at": 0.0}
    here, there = (WorkerReport(**report, node=node) for node in ("a", "b"))

    assert here.key != there.key
    monkeypatch.setenv(NODE_VARIABLE, "rack-7")
    assert node_name() == "rack-7"


async def test_one_process_tells_where_control_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sum of all, those of the dead folded; nobody where control is here."""
    monkeypatch.setenv(NODE_VARIABLE, "far")
    (tmp_path / "run").mkdir()
    counted(tmp_path / "metrics", 5).close()  # a dead one
    alive = counted(tmp_path / "metrics", 7, "worker-1-2-2")
    server = ValkeyServer(tmp_path / "store").start()
    url = server.url
    with contextlib.closing(server.client()) as client:
        tellers = [asyncio.create_task(NodeMetrics(tmp_path, url, LOG).run()) for _ in range(2)]
        try:
            while not client.hexists(METRICS_KEY, "far"):
                await asyncio.sleep(0.02)
            told = decode(client.hget(METRICS_KEY, "far"))
            assert told["sluice_inference_rows_total", ("m", "v1")] == [12.0]
            (tmp_path / "run" / "control.sock").touch()
            await asyncio.sleep(0.1)
            client.delete(METRICS_KEY)
        finally:
            for teller in tellers:
                teller.cancel()
            await asyncio.wait(tellers)
        assert not client.exists(METRICS_KEY)
    server.kill()
    alive.close()
