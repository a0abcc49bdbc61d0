"""What every upstream promises, proven of the real one and of its twin."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import model_kit
import msgspec
import numpy as np
import onnx_models
import pytest

from serving.clock import ManualClock
from serving.config.hosts import HostSpec, data_socket, data_sockets
from serving.config.schema import Limits, ServeConfig
from serving.config.snapshot import StagedVersion
from serving.errors import DeadlineExceeded, InferenceFailed, InvalidRequest, ModelNotReady
from serving.metrics import MetricsFile
from serving.models.examination import examine
from serving.protocol.tensors import TensorLimits
from serving.types import Signature
from serving.upstream import Inference, Upstream
from serving.upstream.endpoints import SocketEndpoints
from serving.upstream.inline import InlineUpstream
from serving.upstream.memory import MemoryUpstream
from serving.upstream.remote import Manner, RemoteUpstream
from serving.worker.host_plane import HostPlane
from serving.worker.http.listener import HttpListener

BOUND = 30.0
ROWS = 4

Feed = dict[str, Any]


def _simple(feed: Feed) -> Feed:
    return {
        "OUTPUT0": feed["INPUT0"] + feed["INPUT1"],
        "OUTPUT1": feed["INPUT0"] - feed["INPUT1"],
    }


def _picky(feed: Feed) -> Feed:
    return {"Y": (np.arange(10, dtype="<f4") * 10)[feed["X"]]}


MODELS = {
    "simple": (onnx_models.simple(), _simple),
    "picky": (onnx_models.picky(), _picky),
    "text": (onnx_models.string_identity(), lambda feed: {"OUTPUT0": feed["INPUT0"]}),
    "fixed": (onnx_models.fixed_batch(), lambda feed: {"Y": feed["X"] * 2}),
}


class World:
    """Makes upstreams of one kind, with a clock that stands still."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.clock = ManualClock()
        self.directory = directory
        self.metrics = MetricsFile(directory / "numbers")
        self.made: list[Upstream] = []
        self.listeners: list[tuple[HttpListener, InlineUpstream]] = []

    async def upstream(self, name: str) -> Upstream:
        """Make one that is ready."""
        model, function = MODELS[name]
        if self.kind == "memory":
            twin = MemoryUpstream(function, examine(model), self.clock, max_batch_size=ROWS)
            self.made.append(twin)
            return twin
        staged = model_kit.staged(self.directory, model)
        serve = msgspec.convert({"max_batch_size": ROWS}, ServeConfig)
        real = InlineUpstream("m", "v1", staged, serve, self.metrics, self.clock)
        await real.load()
        if self.kind == "remote":
            remote = await self._behind_a_socket(real, staged, serve)
            self.made.append(remote)
            return remote
        self.made.append(real)
        return real

    async def _behind_a_socket(
        self, real: InlineUpstream, staged: StagedVersion, serve: ServeConfig
    ) -> RemoteUpstream:
        """A host's listener over a Unix socket, in this process."""
        spec = HostSpec(id="0", model="m", version="v1", staged=staged, serve=serve)
        listener = HttpListener(
            HostPlane(spec, real, self.clock),
            Limits(),
            TensorLimits(),
            MetricsFile(self.directory / "listener"),
            header_names=frozenset,
            clock=self.clock,
        )
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listening.bind(str(data_socket(self.directory, "0", 0)))
        await listener.start([listening], None)
        self.listeners.append((listener, real))
        return RemoteUpstream(
            ("m", "v1"),
            staged.signature,
            SocketEndpoints(partial(data_sockets, self.directory, "0")),
            Manner(
                path="/v2/models/m/versions/v1/infer",
                binary=True,
                own=True,
                max_rows=ROWS,
                max_in_flight=64,
            ),
            metrics=self.metrics,
            clock=self.clock,
        )

    def send(
        self,
        upstream: Upstream,
        feed: Feed,
        *outputs: str,
        within: float = 1.0,
        rows: int = 1,
        shadow: bool = False,
    ) -> "asyncio.Future[Inference]":
        """Send one request."""
        deadline = self.clock.monotonic() + within
        return upstream.infer(feed, rows=rows, outputs=outputs, deadline=deadline, shadow=shadow)


@pytest.fixture(params=["memory", "inline", "remote"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """Provide each kind of upstream in turn, and close what was made."""
    made = World(request.param, tmp_path)
    yield made
    for upstream in made.made:
        await asyncio.wait_for(upstream.close(), BOUND)
    for listener, hosted in made.listeners:
        await listener.drain(0.1)
        await asyncio.wait_for(hosted.close(), BOUND)
    made.metrics.close()


def numbers(first: int, second: int, rows: int = 1) -> Feed:
    """Inputs of `simple`."""
    return {
        "INPUT0": np.full((rows, 16), first, "<i4"),
        "INPUT1": np.full((rows, 16), second, "<i4"),
    }


async def test_outputs_come_in_the_order_asked_for(world: World) -> None:
    """And only those; none named means all, as the model declares them."""
    upstream = await world.upstream("simple")
    asked = [("OUTPUT1",), ("OUTPUT1", "OUTPUT0"), ()]

    got = await asyncio.gather(*[world.send(upstream, numbers(5, 3), *names) for names in asked])

    values = [[int(output[0, 0]) for output in one.outputs] for one in got]
    assert values == [[2], [2, 8], [8, 2]]
    assert all(output.shape == (1, 16) for one in got for output in one.outputs)


async def test_requests_sent_together_get_their_own_rows(world: World) -> None:
    """However an upstream combines them."""
    upstream = await world.upstream("simple")
    sizes = (1, 3, 2, 4, 1)

    got = await asyncio.gather(
        *[
            world.send(upstream, numbers(i, 1, rows), "OUTPUT0", rows=rows)
            for i, rows in enumerate(sizes)
        ]
    )

    for i, (one, rows) in enumerate(zip(got, sizes, strict=True)):
        assert np.array_equal(one.outputs[0], np.full((rows, 16), i + 1))
        assert one.batch_rows >= rows
        assert one.queue_seconds == one.compute_seconds == 0.0  # the clock stood still


async def test_the_signature_is_the_models(world: World) -> None:
    """Names, datatypes and shapes, as the file declares them."""
    upstream = await world.upstream("simple")

    assert isinstance(upstream.signature, Signature)
    assert [one.name for one in upstream.signature.outputs] == ["OUTPUT0", "OUTPUT1"]
    assert upstream.signature.batchable


async def test_bytes_stay_bytes(world: World) -> None:
    """BYTES go in and come out as object arrays of `bytes`; bad UTF-8 names its input."""
    upstream = await world.upstream("text")
    text = np.array([["grün".encode()], [b""]], object)

    got = await world.send(upstream, {"INPUT0": text}, rows=2)

    assert got.outputs[0].tolist() == text.tolist()
    with pytest.raises(InvalidRequest, match="'INPUT0'"):
        await world.send(upstream, {"INPUT0": np.array([[b"\xff"]], object)})


@pytest.mark.parametrize("rows", [0, ROWS + 1])
async def test_the_number_of_rows_has_bounds(world: World, rows: int) -> None:
    """The message names the key in the configuration."""
    upstream = await world.upstream("simple")

    with pytest.raises(InvalidRequest, match=r"serve\.max_batch_size"):
        await world.send(upstream, numbers(1, 1, rows), rows=rows)


async def test_a_model_that_does_not_batch_takes_its_own_shape(world: World) -> None:
    """`rows` means nothing there; requests still run side by side."""
    upstream = await world.upstream("fixed")
    feed = {"X": np.ones((1, 4), "<f4")}

    got = await asyncio.gather(*[world.send(upstream, feed, rows=99) for _ in range(3)])

    assert all(np.array_equal(one.outputs[0], feed["X"] * 2) for one in got)


async def test_a_deadline_that_has_passed_is_refused(world: World) -> None:
    """Before anything is run."""
    upstream = await world.upstream("simple")

    with pytest.raises(DeadlineExceeded):
        await world.send(upstream, numbers(1, 1), within=0.0)


async def test_a_deadline_that_passes_in_the_queue_is_kept(world: World) -> None:
    """The answer would come too late, so there is none."""
    upstream = await world.upstream("simple")
    waiter = world.send(upstream, numbers(1, 1), within=1.0)
    world.clock.advance(2.0)

    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(waiter, BOUND)


async def test_a_failing_request_harms_no_other(world: World, caplog: Any) -> None:
    """It gets InferenceFailed, whose text reveals nothing of the model's insides."""
    upstream = await world.upstream("picky")
    with caplog.at_level(logging.CRITICAL):
        waiters = [world.send(upstream, {"X": np.array([[i]])}) for i in (3, 77, 4)]
        await asyncio.wait(waiters, timeout=BOUND)

    good, guilty, fine = waiters
    assert good.result().outputs[0].ravel().tolist() == [30.0]
    assert fine.result().outputs[0].ravel().tolist() == [40.0]
    assert isinstance(guilty.exception(), InferenceFailed)
    assert "77" not in str(guilty.exception())


async def test_a_cancelled_caller_disturbs_nobody(world: World) -> None:
    """Whether it leaves before or after its turn."""
    upstream = await world.upstream("simple")
    first, second = (world.send(upstream, numbers(i, 0), "OUTPUT0") for i in (1, 2))

    first.cancel()

    got = await asyncio.wait_for(second, BOUND)
    assert got.outputs[0][0, 0] == 2
    assert first.cancelled()


async def test_a_shadow_gets_the_same_answer(world: World) -> None:
    """On idle capacity nothing distinguishes it."""
    upstream = await world.upstream("simple")

    got = await asyncio.wait_for(world.send(upstream, numbers(4, 3), shadow=True), BOUND)

    assert [int(output[0, 0]) for output in got.outputs] == [7, 1]


async def test_closing_finishes_what_is_in_flight_and_takes_no_more(world: World) -> None:
    """Readiness ends at once; closing twice is harmless."""
    upstream = await world.upstream("simple")
    assert upstream.ready()
    waiter = world.send(upstream, numbers(1, 1), "OUTPUT0")

    await asyncio.wait_for(upstream.close(), BOUND)

    assert waiter.result().outputs[0][0, 0] == 2
    assert not upstream.ready()
    with pytest.raises(ModelNotReady):
        await world.send(upstream, numbers(1, 1))
    await asyncio.wait_for(upstream.close(), BOUND)


async def test_inputs_are_left_as_they_were(world: World) -> None:
    """The pipeline may send the same arrays to several versions, and read-only ones."""
    upstream = await world.upstream("simple")
    feed = numbers(2, 1)
    for data in feed.values():
        data.flags.writeable = False
    keys = list(feed)

    await asyncio.gather(*[world.send(upstream, feed) for _ in range(2)])

    assert list(feed) == keys
    assert feed["INPUT0"][0, 0] == 2
