"""A data directory, a store and two ports for worker processes without an engine, and clients."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import grpc
import msgspec
import numpy as np
import onnx_models
from store_kit import ValkeyServer

from serving.config.keys import WORKERS_KEY, WorkerReport, node_name
from serving.config.snapshot import Snapshot
from serving.control.publishing.compile import Compiled, compile_configuration
from serving.control.stores.redis_store import RedisStore
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc

BOUND = 60.0


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


@contextlib.contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """A site whose store runs."""
    made = Site(folder)
    made.store.start()
    try:
        yield made
    finally:
        made.close()


def listening(port: int) -> bool:
    """Whether anybody accepts connections there."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


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
