"""A worker that is killed under load: what its rollout counts, against what the client knows.

Two workers behind one port, a rollout at half of the keys, and every request with a key of its
own. The test does control's part: it publishes the rollout and reads what workers write.
"""

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import gateway_kit
import msgspec
import onnx_models
import pytest
from evidence_kit import cells
from ray_kit import eventually
from store_kit import ValkeyServer

from serving.config.keys import SNAPSHOT_KEY, WORKERS_KEY, WorkerReport
from serving.config.rollout import RolloutConfig
from serving.config.snapshot import RolloutTraffic
from serving.config.snapshot_codec import decode_snapshot
from serving.rollout.wire import (
    Unfolded,
    cell_of,
    decode_unfolded,
    evidence_key,
    folded_key,
    scramble_of,
)
from serving.traffic.split import Splitter

pytestmark = pytest.mark.timeout(180)

ROLLOUT = "m-r1"
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


class Control:
    """What control does for a rollout, done by the test."""

    def __init__(self, store: ValkeyServer) -> None:
        self.store = store
        place = Splitter(ROLLOUT).place
        self._cell = lambda key: cell_of(place(b"%d" % key), scramble_of(ROLLOUT))

    def begin(self) -> None:
        """Publish a rollout at half of the keys, and wait until both workers serve it."""
        with self.store.client() as client:
            snapshot = decode_snapshot(client.get(SNAPSHOT_KEY))
        rules = [{"name": "errors", "metric": "error_rate"}]
        plan = {"canary": "v2", "steps": [{"weight": 50}, {"weight": 100}]}
        rollout = msgspec.convert({**plan, "guardrails": {"rules": rules}}, RolloutConfig)
        model = msgspec.structs.replace(snapshot.models["m"], rollout=rollout)
        traffic = RolloutTraffic(
            id=ROLLOUT,
            revision=1,
            canary="v2",
            production="v1",
            weight=50.0,
            salt=ROLLOUT,
            counting=True,
        )
        revision = snapshot.revision + 1
        self.store.publish(
            msgspec.structs.replace(
                snapshot, revision=revision, models={"m": model}, rollouts={"m": traffic}
            )
        )
        eventually(lambda: self._revisions() == [revision, revision], "both workers serve it")

    def _revisions(self) -> list[int]:
        with self.store.client() as client:
            reports = client.hgetall(WORKERS_KEY).values()
        return [msgspec.json.decode(one, type=WorkerReport).revision for one in reports]

    def told(self) -> list[Unfolded]:
        """What every worker that there ever was has told."""
        with self.store.client() as client:
            return [decode_unfolded(one) for one in client.hvals(evidence_key(ROLLOUT))]

    def confirm_some(self) -> dict[str, int]:
        """Confirm what each worker has told so far but its last batch; keep what that was."""
        confirmed = {}
        with self.store.client() as client:
            for one in self.told():
                if len(one.batches) > 1:
                    confirmed[one.incarnation] = one.batches[-2].number
                    client.hset(folded_key(ROLLOUT), one.incarnation, one.batches[-2].number)
        return confirmed

    def cell(self, key: int) -> int:
        """The cell of a key."""
        return self._cell(key)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[gateway_kit.Running, Control]]:
    """Two workers whose answers take about ten milliseconds, so that something is in flight."""
    store = ValkeyServer(tmp_path / "store").start()
    folder = tmp_path / "conf"
    gateway_kit.write_gateway(folder, engine={"kind": "local", "workers": 2}, store=store.url)
    model = onnx_models.slow(10_000)
    gateway_kit.write_model(
        folder,
        "m",
        {"v1": model, "v2": model},
        {"assignment": {"key": "key"}},
        entity={"key": "INT64"},
        serve={"deadline": "30s"},
    )
    try:
        with gateway_kit.running(folder) as running:
            yield running, Control(store)
    finally:
        store.kill()


def counted(told: list[Unfolded], signal_: str = "") -> dict[str, Counter[int]]:
    """By version: cells that met it, or had a signal of it, each as often as it was told."""
    found: dict[str, Counter[int]] = {"v2": Counter(), "v1": Counter()}
    for one in told:
        for batch in one.batches:
            for share in batch.shares:
                arms = share.events.get(signal_) if signal_ else share.exposed
                if arms is not None:
                    found["v2"].update(cells(arms.canary))
                    found["v1"].update(cells(arms.production))
    return found


def met_by(told: list[Unfolded]) -> set[int]:
    """Cells that met any version."""
    return {cell for found in counted(told).values() for cell in found}


def test_a_killed_worker_loses_its_last_moment_and_nothing_else(
    gateway: tuple[gateway_kit.Running, Control], record_property: Any
) -> None:
    """Keys that were answered are counted, but for those of the last moment before the kill.

    What was in flight is an error of its version, and what is lost is said.
    """
    running, control = gateway
    control.begin()
    with Client(running.http) as client:
        eventually(lambda: len(client.sent) > 600, "some traffic")
        [victim] = running.pids("worker-0")
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: any(one.ended for one in control.told()), "the dead are spoken for")
        so_far = len(client.sent)
        eventually(lambda: len(client.sent) > so_far + 300, "traffic after it")
    wanted = {control.cell(one.key) for one in client.sent[-CONNECTIONS:] if one.version}
    eventually(lambda: wanted <= met_by(control.told()), "the last requests are told of")
    told = control.told()

    exposed, errors = counted(told), counted(told, "errors")
    met = met_by(told)
    answered = [one for one in client.sent if one.version]
    failed = {control.cell(one.key) for one in client.sent if not one.version}
    missing = [one for one in answered if control.cell(one.key) not in met]
    dead = [one for one in told if one.ended]
    lost = sum(sum(batch.lost.values()) for one in dead for batch in one.batches)
    wrong = set(errors["v1"]) | set(errors["v2"])
    record_property(
        "seen",
        f"{len(client.sent)} requests, {len(answered)} answered, {len(failed)} broken; "
        f"{len(missing)} answered and not counted, {lost} told as lost, "
        f"{len(wrong)} counted as errors",
    )

    assert len(dead) == 1
    # Nothing that was answered before the last moment is missing, and what is missing was said.
    assert all(killed - LOST_SECONDS < one.ended < killed + LOST_SECONDS for one in missing)
    assert len(missing) <= lost
    # Nothing was invented: whoever is counted has asked, and of his own version.
    assert met <= {control.cell(one.key) for one in client.sent}
    known = {control.cell(one.key): one.version for one in answered}
    for version, found in exposed.items():
        assert {known.get(cell, version) for cell in found} <= {version}
    # What was in flight is an error, and only of those who got no answer.
    assert wrong
    assert wrong <= failed
    assert wrong <= met
    # Each worker told of each key once, whatever became of it.
    for one in told:
        assert {times for cells_ in counted([one]).values() for times in cells_.values()} == {1}


def test_confirmed_batches_are_not_told_again_by_whoever_speaks_for_the_dead(
    gateway: tuple[gateway_kit.Running, Control],
) -> None:
    """Every number of the dead worker stands in the store once, or was confirmed."""
    running, control = gateway
    control.begin()
    with Client(running.http) as client:
        eventually(lambda: len(client.sent) > 300 and len(control.told()) == 2, "some traffic")
        confirmed = control.confirm_some()
        seen = len(client.sent)
        eventually(lambda: len(client.sent) > seen + 100, "more traffic")
        [victim] = running.pids("worker-1")
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: any(one.ended for one in control.told()), "the dead are spoken for")
    [dead] = [one for one in control.told() if one.ended]

    numbers = [batch.number for batch in dead.batches]
    first = confirmed.get(dead.incarnation, 0) + 1
    assert numbers[0] >= first
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] + 1 - len(numbers) <= 1  # the one that was under way
