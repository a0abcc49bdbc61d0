"""A worker process without an engine: its life in this process, its drain as one of two."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gateway_kit
import grpc
import msgspec
import numpy as np
import onnx_models
import pytest
from store_kit import ValkeyServer

from serving.config.keys import WORKERS_KEY, WorkerReport, node_name
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import encode_snapshot
from serving.control.compile import Compiled, compile_configuration
from serving.control.redis_store import RedisStore
from serving.metrics_folder import totals
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc
from serving.worker.command_line import parse_arguments
from serving.worker.process import Worker
from serving.worker.settings import load_settings

T = TypeVar("T")
BOUND = 60.0
CONNECTIONS = 16
SECOND = 1_000_000
"""Trips of the patient model that take about a second; nothing here depends on it."""


def infer_bytes(model: str, datatype: str, value: int, *, timeout: str = "50s") -> bytes:
    """An inference over HTTP/1.1, ready to be sent."""
    body = json.dumps(
        {"inputs": [{"name": "X", "datatype": datatype, "shape": [1, 1], "data": [value]}]}
    )
    return (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: test\r\n"
        f"Content-Length: {len(body)}\r\nX-Request-Timeout: {timeout}\r\n\r\n{body}"
    ).encode()


DOUBLE_21 = infer_bytes("doubler", "FP32", 21)


class Answer(msgspec.Struct):
    """An HTTP answer, and whether its connection ends with it."""

    status: int
    closing: bool
    body: Any


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read one answer from a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    status, *lines = head.rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    body = await reader.readexactly(int(headers["content-length"]))
    closing = headers.get("connection") == "close"
    return Answer(int(status.split(" ")[1]), closing, json.loads(body))


async def ask(port: int, request: bytes = DOUBLE_21) -> Answer:
    """Ask once over a connection of its own."""
    async with asyncio.timeout(BOUND):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            return await read_answer(reader)
        finally:
            writer.transport.abort()


async def until(condition: Callable[[], Any]) -> Any:
    """Wait for something that a worker will do; gives what it was."""
    async with asyncio.timeout(BOUND):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


class Site:
    """A data directory, a compiled configuration, a store and two ports that nobody else has."""

    def __init__(self, folder: Path, **gateway: Any) -> None:
        self.data = folder / "data"
        self.configuration = folder / "gateway"
        (self.data / "run").mkdir(parents=True)
        gateway_kit.write_gateway(self.configuration, **gateway)
        serve = {"deadline": "50s"}
        gateway_kit.write_model(
            self.configuration, "doubler", {"v1": onnx_models.doubler()}, {}, serve=serve
        )
        gateway_kit.write_model(
            self.configuration, "patient", {"v1": onnx_models.patience()}, {}, serve=serve
        )
        self.store = ValkeyServer(self.data)
        # Bound and never listening: the workers share the ports, and get all the connections.
        self._held = [socket.socket() for _ in range(2)]
        for one in self._held:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind(("127.0.0.1", 0))
        self.http, self.grpc = (one.getsockname()[1] for one in self._held)
        self._compiled: Compiled | None = None

    def arguments(self, worker: int) -> list[str]:
        """How an engine would start this worker."""
        return [
            *("--data", str(self.data), "--config", str(self.configuration)),
            *("--worker", str(worker), "--store", self.store.url),
            *("--http", f"127.0.0.1:{self.http}", "--grpc", f"127.0.0.1:{self.grpc}"),
        ]

    def snapshot(self, revision: int = 1) -> Snapshot:
        """The configuration under a revision, its models staged and checked."""
        if self._compiled is None:
            self._compiled = compile_configuration(self.configuration, self.data)
        return self._compiled.snapshot(revision=revision, author="test", at=time.time())

    async def publish(self, snapshot: Snapshot) -> None:
        """Do as control does."""
        store = RedisStore(self.store.url)
        assert await store.publish(snapshot)
        await store.close()

    async def private(self, worker: int, line: str) -> tuple[int, Any] | None:
        """Ask a worker's private socket; None while nobody listens there."""
        try:
            reader, writer = await asyncio.open_unix_connection(
                self.data / "run" / f"worker-{worker}.sock"
            )
        except OSError:
            return None
        try:
            writer.write(f"{line} HTTP/1.1\r\nHost: worker\r\n\r\n".encode())
            answer = await read_answer(reader)
        except (OSError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.transport.abort()
        return answer.status, answer.body

    async def ready(self, worker: int, revision: int = 1) -> None:
        """Wait until a worker serves a revision."""

        async def is_ready() -> bool:
            said = await self.private(worker, "GET /readyz")
            return said is not None and said[0] == 200 and said[1]["revision"] == revision

        await until(is_ready)

    async def load(self, worker: int, what: str) -> float:
        """One figure of a worker's load; 0 if it does not answer."""
        said = await self.private(worker, "GET /load")
        return said[1][what] if said is not None else 0

    def report(self, worker: int) -> WorkerReport | None:
        """What the store knows of a worker."""
        with self.store.client() as client:
            body = client.hget(WORKERS_KEY, f"worker-{worker}@{node_name()}")
        return None if body is None else msgspec.json.decode(body, type=WorkerReport)

    def close(self) -> None:
        """Let everything go."""
        self.store.kill()
        for one in self._held:
            one.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with a running store."""
    made = Site(tmp_path)
    made.store.start()
    yield made
    made.close()


# --- one worker's life, in this process -----------------------------------------------------


@pytest.fixture
def collector() -> Iterator[None]:
    """A worker tunes the garbage collector of its process; here that is put back."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@contextlib.asynccontextmanager
async def living(site: Site) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker as a task; drained at the end if it still runs."""
    arguments = parse_arguments(site.arguments(0))
    arguments.pid = os.getpid()
    worker = Worker(arguments, load_settings(site.configuration, site.data))
    task = asyncio.create_task(worker.run())
    try:
        await until(lambda: site.private(0, "GET /healthz"))
        yield task
        async with asyncio.timeout(BOUND):
            if not task.done():
                assert await site.private(0, "POST /drain") == (200, {"draining": True})
            await task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=BOUND)


def listening(port: int) -> bool:
    """Whether anybody accepts connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.usefixtures("collector")
async def test_a_worker_listens_once_it_has_something_to_serve(site: Site) -> None:
    """It is healthy at once, takes connections with its first table, and leaves in order."""
    async with living(site):
        assert await site.private(0, "GET /healthz") == (200, {"healthy": True})
        early = await site.private(0, "GET /readyz")
        listened_early = listening(site.http)
        await site.publish(site.snapshot())
        await site.ready(0)
        answer = await ask(site.http)
        said = await until(lambda: (r := site.report(0)) and r.state == "ready" and r)

    told = {"refused_revision": 0, "refused_reason": ""}
    assert early == (503, {"ready": False, "state": "starting", "revision": 0, **told})
    assert not listened_early
    assert (answer.status, answer.body["outputs"][0]["data"]) == (200, [42.0])
    assert (said.revision, said.pid) == (1, os.getpid())
    assert site.report(0) is None
    assert not listening(site.http)
    assert await site.private(0, "GET /healthz") is None
    counted = totals(site.data / "metrics")
    assert counted["sluice_requests_total", ("doubler", "v1", "production", "http", "OK")] == [1]


@pytest.mark.usefixtures("collector")
async def test_a_worker_without_a_store_serves_from_its_disk(site: Site) -> None:
    """The last good snapshot is enough to answer over both protocols."""
    snapshot = site.snapshot(7)
    (site.data / "snapshot.json").write_bytes(encode_snapshot(snapshot))
    site.store.kill()

    async with living(site):
        await site.ready(0, 7)
        over_http = await ask(site.http)
        over_grpc = await grpc_ask(site.grpc)

    assert over_http.body["outputs"][0]["data"] == [42.0]
    assert over_grpc == "OK"


@pytest.mark.usefixtures("collector")
async def test_a_revision_that_cannot_be_loaded_changes_nothing(site: Site) -> None:
    """A model file gone from the disk is the new revision's trouble, not that of the old one."""
    good = site.snapshot(1)
    staged = {
        model: {
            version: msgspec.structs.replace(one, path=f"{one.path}.gone", sha256="0" * 64)
            for version, one in versions.items()
        }
        for model, versions in good.staged.items()
    }

    async with living(site):
        await site.publish(good)
        await site.ready(0, 1)
        await site.publish(msgspec.structs.replace(good, revision=2, staged=staged))
        said = await until(lambda: (r := site.report(0)) and r.refused_revision and r)
        answer = await ask(site.http)
        ready = await site.private(0, "GET /readyz")

    assert (said.revision, said.refused_revision) == (1, 2)
    assert said.refused_reason
    assert answer.status == 200
    told = {"refused_revision": 2, "refused_reason": said.refused_reason}
    assert ready == (200, {"ready": True, "state": "ready", "revision": 1, **told})


@pytest.mark.usefixtures("collector")
async def test_whoever_supervises_sees_load_and_recent_records(site: Site) -> None:
    """The private socket shows what is in flight, what is connected, and what was answered."""
    async with living(site):
        await site.publish(site.snapshot())
        await site.ready(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.http)
        for _ in range(3):
            writer.write(DOUBLE_21)
            await read_answer(reader)
        load = await site.private(0, "GET /load")
        recent = await site.private(0, "GET /recent?limit=2&model=doubler")
        others = await site.private(0, "GET /recent?model=patient")
        bad = await site.private(0, "GET /recent?limit=many")
        writer.close()

    assert load is not None
    assert load[0] == 200
    assert (load[1]["in_flight"], load[1]["connections"]) == (0, 1)
    assert load[1]["busy_seconds"] > 0
    assert recent is not None
    assert [record["code"] for record in recent[1]] == ["OK", "OK"]
    assert others == (200, [])
    assert bad is not None
    assert bad[0] == 400


@pytest.mark.usefixtures("collector")
async def test_sigterm_before_the_first_table_ends_a_worker(site: Site) -> None:
    """A worker that never served has nothing to drain."""
    async with living(site) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(BOUND):
            await task

    assert await site.private(0, "GET /healthz") is None


# --- the drain, as one of two ---------------------------------------------------------------


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


# --- the same over gRPC ---------------------------------------------------------------------


def infer_message(model: str, value: int) -> pb.ModelInferRequest:
    """One row for a model."""
    whole = model == "patient"
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="X", datatype="INT64" if whole else "FP32", shape=[1, 1])
    message.raw_input_contents.append(np.array([value], "<i8" if whole else "<f4").tobytes())
    return message


async def grpc_ask(port: int, model: str = "doubler", value: int = 21) -> str:
    """Ask once over a channel of its own: the status's name."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        return await grpc_call(pb_grpc.GRPCInferenceServiceStub(channel), model, value)


async def grpc_call(stub: Any, model: str = "doubler", value: int = 21) -> str:
    """Ask over a channel: the status's name."""
    try:
        answer = await stub.ModelInfer(infer_message(model, value), timeout=BOUND)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    kind = "<i8" if model == "patient" else "<f4"
    expected = value if model == "patient" else 2 * value
    assert np.frombuffer(answer.raw_output_contents[0], kind).tolist() == [expected]
    return "OK"


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
