"""A worker that is killed under load: what its rollout counts, against what the client knows.

Two workers behind one port, a rollout at half of the keys, every request with a key of its own, and
control, whose book is read when everything has ended.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import gateway_kit
import msgspec
import numpy as np
import onnx_models
import pytest
from ray_kit import eventually
from store_kit import ValkeyServer

from serving.config.keys import SNAPSHOT_KEY, WORKERS_KEY, WorkerReport
from serving.config.snapshot import RolloutTraffic
from serving.config.snapshot_codec import decode_snapshot
from serving.control.rollouts.evidence_log import RolloutEvidenceLog
from serving.rollout.book import CANARY, PRODUCTION, Book
from serving.rollout.wire import cell_of, decode_unfolded, evidence_key, scramble_of
from serving.traffic.split import Splitter

pytestmark = pytest.mark.timeout(180)

PLAN = {
    "canary": "v2",
    "steps": [{"weight": 50, "bake": {"min": "1h"}}, {"weight": 100}],
    "guardrails": {
        "rules": [{"name": "errors", "metric": "error_rate", "tolerance": 1.5}],
        "dry_run": ["errors"],
        "hard_stops": {"consecutive_errors": 0, "min_requests": 1_000_000},
    },
}
CONNECTIONS = 12
LOST_SECONDS = 1.0
"""What a killed worker may take with it: what it had not sent for a quarter of a second, the round
trip that was under way, and what a busy machine adds."""


class Sent(msgspec.Struct, frozen=True):
    """One request: its key, the version that answered (empty: none), when it ended (monotonic)."""

    key: int
    version: str
    ended: float


class Client:
    """Connections that ask one thing after another, each request with a key of its own."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._next = 0
        self.sent: list[Sent] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30)

    async def _run(self) -> None:
        await asyncio.gather(*(self._ask() for _ in range(CONNECTIONS)))

    async def _ask(self) -> None:
        connection = None
        while not self._ending.is_set():
            self._next += 1
            key, version = self._next, ""
            try:
                if connection is None:
                    connection = await asyncio.open_connection(*self._address)
                version = await _infer(*connection, key)
            except (OSError, EOFError):
                if connection is not None:
                    connection[1].close()
                connection = None
            self.sent.append(Sent(key, version, time.monotonic()))
        if connection is not None:
            connection[1].close()


async def _infer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: int) -> str:
    inputs = [
        {"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [1.0]},
        {"name": "key", "datatype": "INT64", "shape": [1], "data": [key]},
    ]
    body = json.dumps({"inputs": inputs}).encode()
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(answer.partition("content-length:")[2].split("\r\n")[0])
    content = await reader.readexactly(length)
    assert " 200 " in answer, content
    return str(json.loads(content)["model_version"])


class Site:
    """A gateway in the middle of a rollout."""

    def __init__(self, running: gateway_kit.Running, store: ValkeyServer) -> None:
        self.running = running
        self.store = store
        eventually(self._counts, "both workers serve a rollout that counts")
        rollout = self._rollout()
        assert rollout is not None
        self.id = rollout.id
        self._place = Splitter(rollout.salt).place

    def _counts(self) -> bool:
        with self.store.client() as client:
            reports = client.hgetall(WORKERS_KEY).values()
        revisions = [msgspec.json.decode(one, type=WorkerReport).revision for one in reports]
        rollout = self._rollout()
        return rollout is not None and rollout.weight == 50 and revisions == [self._revision] * 2

    def _rollout(self) -> RolloutTraffic | None:
        with self.store.client() as client:
            snapshot = decode_snapshot(client.get(SNAPSHOT_KEY))
        self._revision = snapshot.revision
        return snapshot.rollouts.get("m")

    def cell(self, key: int) -> int:
        """The cell of a key."""
        return cell_of(self._place(b"%d" % key), scramble_of(self.id))

    def files_of(self, pid: int) -> list[Path]:
        """What a worker has in flight, or had."""
        return list((self.running.data / "run" / "evidence").glob(f"*-{pid}~*"))

    def book(self) -> Book:
        """What control has written down and, as it would at its next start, what waits for it."""
        log = RolloutEvidenceLog(self.running.data / "rollouts" / "m" / self.id, [])
        log.close()
        with self.store.client() as client:
            for body in client.hvals(evidence_key(self.id)):
                log.book.fold(decode_unfolded(body))
        return log.book


def members(book: Book, name: str, cells: set[int]) -> set[int]:
    """Which of these cells are in a set of the book."""
    if name not in book.sets:
        return set()
    asked = np.array(sorted(cells), np.uint32)
    return cells - set(book.sets[name].without(asked).tolist())


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[tuple[Path, ValkeyServer]]:
    """Two workers whose answers take about ten milliseconds, so that something is in flight."""
    store = ValkeyServer(tmp_path / "store").start()
    folder = tmp_path / "conf"
    gateway_kit.write_gateway(folder, engine={"kind": "local", "workers": 2}, store=store.url)
    model = onnx_models.slow(10_000)
    gateway_kit.write_model(
        folder,
        "m",
        {"v1": model, "v2": onnx_models.slow(10_001)},
        {"assignment": {"key": "key"}},
        entity={"key": "INT64"},
        serve={"deadline": "30s"},
        rollout=PLAN,
    )
    yield folder, store
    store.kill()


def test_a_killed_worker_loses_its_last_moment_and_nothing_else(
    configured: tuple[Path, ValkeyServer], record_property: Any
) -> None:
    """Keys that were answered are counted, but for those of the last moment before the kill.

    What was in flight is an error of its version, nothing counts twice, and what is lost is said.
    """
    folder, store = configured
    with gateway_kit.running(folder) as running:
        site = Site(running, store)
        with Client(running.http) as client:
            eventually(lambda: len(client.sent) > 600, "some traffic")
            [victim] = running.pids("worker-0")
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            assert site.files_of(victim)
            eventually(lambda: not site.files_of(victim), "control has heard of the dead")
            so_far = len(client.sent)
            eventually(lambda: len(client.sent) > so_far + 300, "traffic after it")
    book = site.book()

    sent = {site.cell(one.key) for one in client.sent}
    answered = [one for one in client.sent if one.version]
    failed = {site.cell(one.key) for one in client.sent if not one.version}
    met = {"v2": members(book, CANARY, sent), "v1": members(book, PRODUCTION, sent)}
    missing = [one for one in answered if site.cell(one.key) not in met[one.version]]
    wrong = members(book, "errors", sent)
    lost = book.counts.lost.get("killed", 0)
    record_property(
        "seen",
        f"{len(client.sent)} requests, {len(answered)} answered, {len(failed)} broken; "
        f"{len(missing)} answered and not counted, {lost} told as lost, "
        f"{len(wrong)} counted as errors",
    )

    # Nothing that was answered before the last moment is missing, and what is missing was said.
    assert all(killed - LOST_SECONDS < one.ended < killed + LOST_SECONDS for one in missing)
    assert len(missing) <= lost
    # Nothing was invented, and nothing counted twice: each request had a key of its own.
    assert book.keys == (len(met["v2"]), len(met["v1"]))
    # Whose key was told while the request was in flight may be among the lost all the same.
    assert sum(book.requests) == len(answered) - lost + len(wrong)
    # What was in flight is an error, and only of those who got no answer.
    assert wrong
    assert wrong <= failed
