"""A worker process that leaves, as one of two that share their ports."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from worker_process_kit import (
    BOUND,
    DOUBLE_21,
    Answer,
    Site,
    ask,
    grpc_ask,
    grpc_call,
    infer_bytes,
    read_answer,
    running_site,
    until,
)

from serving.metrics_folder import totals
from serving.protocol._generated import inference_pb2_grpc as pb_grpc

T = TypeVar("T")
CONNECTIONS = 16
SECOND = 1_000_000
"""Trips of the patient model that take about a second; nothing here depends on it."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with a running store."""
    with running_site(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def started(site: Site, *numbers: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Workers as an engine starts them, ready; killed at the end if they still run."""
    await site.publish(site.snapshot())
    workers = []
    try:
        for number in numbers:
            with (site.data / f"worker-{number}.log").open("wb") as log:
                workers.append(
                    await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "serving.worker.process"),
                        *site.arguments(number),
                        *("--parent", str(os.getpid())),
                        stdin=asyncio.subprocess.DEVNULL,
                        stderr=log,
                    )
                )
        for number in numbers:
            await site.ready(number)
        yield workers
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


async def finished(worker: asyncio.subprocess.Process) -> int:
    """The exit code of a worker that was told to end."""
    async with asyncio.timeout(BOUND):
        return await worker.wait()


class KeepAlive:
    """Clients that ask all the time over connections they keep, and leave when asked to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = 0
        self.asked_to_leave = 0
        self.refused: list[Answer] = []
        self.broken: list[str] = []
        """Failures on connections that had already brought an answer."""
        self.turned_away = 0
        """New connections that brought none."""

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._client())

    async def _client(self) -> None:
        while True:
            answers = 0
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                self.turned_away += 1
                continue
            try:
                while True:
                    writer.write(DOUBLE_21)
                    answer = await read_answer(reader)
                    answers += 1
                    self.answered += 1
                    if answer.status != 200:
                        self.refused.append(answer)
                    if answer.closing:
                        self.asked_to_leave += 1
                        break
            except (OSError, asyncio.IncompleteReadError) as error:
                if answers:
                    self.broken.append(repr(error))
                else:
                    self.turned_away += 1
            finally:
                writer.transport.abort()


@contextlib.asynccontextmanager
async def asking(clients: Any) -> AsyncIterator[None]:
    """Keep clients asking."""
    task = asyncio.create_task(clients.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_no_request_on_a_kept_connection_fails_while_its_worker_drains(site: Site) -> None:
    """It answers with `connection: close`, its clients go to the other worker, and it exits 0."""
    clients = KeepAlive(site.http)
    async with started(site, 0, 1) as (leaving, staying), asking(clients):

        async def both_busy() -> bool:
            shares = [await site.load(number, "connections") for number in (0, 1)]
            return min(shares) > 0 and clients.answered > 200

        await until(both_busy)
        leaving.send_signal(signal.SIGTERM)
        code = await finished(leaving)
        so_far = clients.answered
        await until(lambda: clients.answered > so_far + 200)
        remaining = staying.returncode

    print(f"turned away while new: {clients.turned_away} of {clients.answered}")  # noqa: T201
    assert code == 0
    assert remaining is None
    assert clients.broken == []
    assert clients.refused == []
    assert clients.asked_to_leave > 0


async def in_flight_at_sigterm(site: Site, request: Coroutine[Any, Any, T]) -> tuple[T, int]:
    """Send SIGTERM while a request runs: what became of it, and the worker's exit code."""
    async with started(site, 0) as (worker,):
        waiting = asyncio.create_task(request)

        async def runs() -> bool:
            return await site.load(0, "in_flight") == 1

        await until(runs)
        worker.send_signal(signal.SIGTERM)
        return await waiting, await finished(worker)


async def test_a_request_in_flight_is_answered_before_its_worker_ends(site: Site) -> None:
    """What runs when SIGTERM comes is finished and answered; then the worker exits with 0."""
    request = ask(site.http, infer_bytes("patient", "INT64", SECOND))

    answer, code = await in_flight_at_sigterm(site, request)

    assert (answer.status, answer.closing) == (200, True)
    assert answer.body["outputs"][0]["data"] == [SECOND]
    assert code == 0


async def test_a_drain_does_not_wait_for_ever(tmp_path: Path) -> None:
    """What is not finished after `drain_timeout` is given up, said in the log, and it ends."""
    site = Site(tmp_path, limits={"drain_timeout": "200ms"})
    site.store.start()
    try:
        async with started(site, 0) as (worker,):
            endless = infer_bytes("patient", "INT64", 10_000 * SECOND, timeout="3s")
            waiting = asyncio.create_task(ask(site.http, endless))

            async def in_flight() -> bool:
                return await site.load(0, "in_flight") == 1

            await until(in_flight)
            worker.send_signal(signal.SIGTERM)
            await finished(worker)
            [unanswered] = await asyncio.gather(waiting, return_exceptions=True)
    finally:
        site.close()

    assert isinstance(unanswered, (ConnectionError, asyncio.IncompleteReadError))
    assert "1 requests abandoned" in (site.data / "worker-0.log").read_text()


async def test_an_idle_worker_leaves_at_once_and_takes_its_report_along(site: Site) -> None:
    """Nobody connected, nothing in flight: exit 0, and the store no longer lists it."""
    async with started(site, 0) as (worker,):
        worker.send_signal(signal.SIGTERM)

        assert await finished(worker) == 0

    assert site.report(0) is None


async def test_a_grpc_call_in_flight_ends_before_its_worker_does(site: Site) -> None:
    """It is finished, and its caller hears of it: by the answer, or by UNAVAILABLE.

    The native front's close drops what its thread has not written yet, so the very last
    answer before the end can be lost.
    """
    status, code = await in_flight_at_sigterm(site, grpc_ask(site.grpc, "patient", SECOND))

    assert status in {"OK", "UNAVAILABLE"}
    assert code == 0
    counted = totals(site.data / "metrics")
    assert counted["sluice_requests_total", ("patient", "v1", "production", "grpc", "OK")] == [1]


class GrpcClients:
    """Channels of their own that ask all the time and retry nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.codes: Counter[str] = Counter()

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._client())

    async def _client(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        address = f"127.0.0.1:{self._port}"
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            while True:
                self.codes[await grpc_call(stub)] += 1


async def test_grpc_clients_of_a_draining_worker_are_told_to_go_elsewhere(site: Site) -> None:
    """What is lost is UNAVAILABLE, which clients may retry; then the other worker has all.

    Between the end of its last call and its GOAWAY the native front refuses calls on open
    connections, so a client that retries nothing does see some of these. No call goes
    without an answer, and none fails otherwise.
    """
    clients = GrpcClients(site.grpc)
    async with started(site, 0, 1) as (leaving, staying), asking(clients):
        await until(lambda: clients.codes["OK"] > 200)
        leaving.send_signal(signal.SIGTERM)
        code = await finished(leaving)
        so_far = clients.codes["OK"]
        await until(lambda: clients.codes["OK"] > so_far + 200)
        remaining = staying.returncode

    print(f"gRPC codes: {dict(clients.codes)}")  # noqa: T201
    assert code == 0
    assert remaining is None
    assert set(clients.codes) <= {"OK", "UNAVAILABLE"}
