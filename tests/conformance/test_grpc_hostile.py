"""Peers that break HTTP/2's manners: they get an end, and nobody else notices."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import psutil
import pytest
from conformance.grpc_wire import Wire, infer_request, wire

BOUND = 20.0
PATH = "/inference.GRPCInferenceService/ModelInfer"
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


@pytest.fixture(params=["pygrpc_native", "grpc.aio"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wire]:
    """A plane on a port, open to everybody."""
    async with wire(request.param == "pygrpc_native", tmp_path) as one:
        yield one


class Peer:
    """A raw HTTP/2 connection that may do as it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.events: list[h2.events.Event] = []

    async def flush(self) -> None:
        """Send what h2 has prepared."""
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def read_until(self, *kinds: type[h2.events.Event]) -> h2.events.Event | None:
        """Wait for an event; None if the connection ends first."""
        async with asyncio.timeout(BOUND):
            while True:
                for event in self.events:
                    if isinstance(event, kinds):
                        return event
                data = await self.reader.read(65536)
                if not data:
                    return None
                self.events += self.h2.receive_data(data)
                await self.flush()

    async def ended(self) -> bool:
        """Whether the server closes the connection within the bound."""
        try:
            async with asyncio.timeout(BOUND):
                while await self.reader.read(65536):
                    pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True


@contextlib.asynccontextmanager
async def peer(port: int, *, greet: bool = True) -> AsyncIterator[Peer]:
    """Connect; with `greet` the preface and settings are sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    one = Peer(reader, writer)
    try:
        if greet:
            one.h2.initiate_connection()
            await one.flush()
        yield one
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def others_are_served(served: Wire) -> bool:
    """Whether a well-behaved client gets its answer."""
    answer = await served.stub.ModelInfer(infer_request(), timeout=BOUND)
    return bool(answer.model_name == "identity_fp32")


async def test_a_connection_may_hold_a_hundred_streams(served: Wire) -> None:
    """The server announces its bound on concurrent streams."""
    async with peer(served.port) as one:
        event = await one.read_until(h2.events.RemoteSettingsChanged)

        assert isinstance(event, h2.events.RemoteSettingsChanged)
        changed = event.changed_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS]
        assert changed.new_value == 100


async def test_a_flood_of_reset_requests_leaves_nothing_behind(served: Wire) -> None:
    """A thousand requests opened and reset at once free every slot; others are answered."""
    body = infer_request("waiting").SerializeToString()
    framed = b"\0" + struct.pack(">I", len(body)) + body
    async with peer(served.port) as one:
        with contextlib.suppress(ConnectionError):  # sent away half-way is as good
            for _ in range(1000):
                stream = one.h2.get_next_available_stream_id()
                one.h2.send_headers(stream, HEADERS)
                if one.h2.outbound_flow_control_window > len(framed):
                    one.h2.send_data(stream, framed, end_stream=True)
                one.h2.reset_stream(stream)
                await one.flush()

        assert await others_are_served(served)
    while served.plane.waiting:
        served.plane.left.clear()
        await asyncio.wait_for(served.plane.left.wait(), BOUND)
    assert served.plane.waiting == 0


async def test_endless_header_frames_cost_no_memory(served: Wire) -> None:
    """Headers that never finish are cut off (native) or thrown away as they come (grpc.aio)."""
    literal = bytes([0x00, 1]) + b"x" + bytes([100]) + b"a" * 100
    frame = literal * 150  # within the 16 KiB that every HTTP/2 peer takes
    process = psutil.Process()
    before = 0
    async with peer(served.port) as one:
        # HEADERS without END_HEADERS, then CONTINUATION frames without end.
        with contextlib.suppress(ConnectionError):
            one.writer.write(_frame(0x1, 1, frame))
            for number in range(32_000):
                if number == 8000:  # buffers have the size they will keep
                    before = process.memory_info().rss
                one.writer.write(_frame(0x9, 1, frame))
                await one.writer.drain()
        grown = process.memory_info().rss - before if before else 0

        # Of 358 MiB sent since: what grpc's threads have not decoded yet varies by tens of MiB.
        assert grown < 144 << 20
        assert await others_are_served(served)
    assert served.plane.waiting == 0


def _frame(kind: int, stream: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, 0])
        + struct.pack(">I", stream)
        + (payload)
    )


async def test_http_1_is_sent_away(served: Wire) -> None:
    """A browser at the gRPC port gets an end, not a hang."""
    async with peer(served.port, greet=False) as one:
        one.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await one.writer.drain()

        assert await one.ended()
    assert await others_are_served(served)


async def test_a_truncated_message_is_an_error_of_its_own_call(served: Wire) -> None:
    """A length that promises more than is sent never reaches the plane; the connection lives."""
    body = infer_request().SerializeToString()
    good = b"\0" + struct.pack(">I", len(body)) + body
    async with peer(served.port) as one:
        for message in (b"\0" + struct.pack(">I", 1000) + b"short", good):
            stream = one.h2.get_next_available_stream_id()
            one.h2.send_headers(stream, HEADERS)
            one.h2.send_data(stream, message, end_stream=True)
            await one.flush()
        answer = await one.read_until(h2.events.DataReceived)

        assert answer is not None
        assert answer.stream_id == stream
        assert len(served.plane.calls) == 1
        assert await others_are_served(served)


async def test_a_peer_that_says_nothing_harms_nobody(served: Wire) -> None:
    """Three hundred silent connections stay idle while others are answered."""
    silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(300)]
    try:
        assert await others_are_served(served)
    finally:
        for _, writer in silent:
            writer.close()
        await asyncio.gather(
            *(writer.wait_closed() for _, writer in silent), return_exceptions=True
        )


async def test_a_message_too_large_by_declaration_is_refused_at_once(tmp_path: Path) -> None:
    """grpc.aio reads the declared length, 4 GiB, and waits for none of it."""
    async with wire(False, tmp_path) as served, peer(served.port) as one:
        stream = one.h2.get_next_available_stream_id()
        one.h2.send_headers(stream, HEADERS)
        one.h2.send_data(stream, b"\0\xff\xff\xff\xff" + b"a" * 100)
        await one.flush()
        trailers = await one.read_until(h2.events.TrailersReceived, h2.events.ResponseReceived)

        assert trailers is not None
        assert dict(trailers.headers)[b"grpc-status"] == b"8"
        assert await others_are_served(served)
