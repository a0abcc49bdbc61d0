"""Which server carries the services, its port, its encryption, and how it stops."""

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from conformance.grpc_plane import TwinPlane
from conformance.grpc_wire import infer_request, wire
from conformance.test_grpc_hostile import peer

from serving.clock import SystemClock
from serving.config.schema import Limits
from serving.errors import EngineError
from serving.metrics import MetricsFile
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc
from serving.protocol.tensors import TensorLimits
from serving.worker.grpc.listener import GrpcListener
from serving.worker.grpc.sockets import listening_sockets

BOUND = 20.0
GOAWAY = 7


@pytest.fixture(params=["pygrpc_native", "grpc.aio"])
def native(request: pytest.FixtureRequest) -> bool:
    """Whether the listener is carried by the native front."""
    return request.param == "pygrpc_native"


def listener_of(plane: TwinPlane, folder: Path, native: bool | None) -> GrpcListener:
    """An unstarted listener."""
    return GrpcListener(
        plane,
        Limits(),
        TensorLimits(),
        MetricsFile(folder / f"{id(plane)}.metrics"),
        header_names=frozenset,
        clock=SystemClock(),
        native=native,
    )


@asynccontextmanager
async def started(
    folder: Path,
    native: bool | None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
) -> AsyncIterator[tuple[GrpcListener, int, TwinPlane]]:
    """A listener, its port and its plane."""
    plane = TwinPlane()
    listener = listener_of(plane, folder, native)
    bound = await listener.start(host, port, credentials)
    try:
        yield listener, bound, plane
    finally:
        plane.release.set()
        await listener.drain(5.0)


async def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a new connection to the port is served."""
    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        try:
            return bool((await stub.ServerLive(pb.ServerLiveRequest(), timeout=BOUND)).live)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False


@pytest.mark.parametrize(
    ("host", "native", "kind"),
    [
        ("127.0.0.1", None, "pygrpc_native"),
        ("127.0.0.1", False, "grpc.aio"),
        ("0.0.0.0", None, "grpc.aio"),
        ("0.0.0.0", True, "pygrpc_native"),
    ],
)
async def test_the_native_front_is_taken_by_itself_on_loopback_only(
    tmp_path: Path, host: str, native: bool | None, kind: str
) -> None:
    """It buffers what it will refuse, so the network gets it only when it is asked for."""
    async with started(tmp_path, native, host=host) as (listener, port, _):
        assert listener.kind == kind
        assert await answers(port)


async def test_without_the_package_grpc_aio_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pygrpc-native is optional; demanding it without having it is an error that says so."""
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    async with started(tmp_path, None) as (listener, port, _):
        assert listener.kind == "grpc.aio"
        assert await answers(port)
    with pytest.raises(EngineError, match="native-grpc"):
        await listener_of(TwinPlane(), tmp_path, True).start("127.0.0.1", 0)


async def test_tls_is_served_by_grpc_aio(tmp_path: Path) -> None:
    """With credentials the listener speaks TLS and nothing else, whatever `native` says."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    client = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with started(tmp_path, True, credentials=credentials) as (listener, port, _):
        async with grpc.aio.secure_channel(f"localhost:{port}", client) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            answer = await stub.ModelInfer(infer_request(), timeout=BOUND)

        assert listener.kind == "grpc.aio"
        assert answer.model_name == "identity_fp32"
        assert not await answers(port)


async def test_mutual_tls_turns_away_who_has_no_certificate(tmp_path: Path) -> None:
    """A client authority makes certificates mandatory."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    mine = authority.issue_cert("client@example.org")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())],
        root_certificates=authority.cert_pem.bytes(),
        require_client_auth=True,
    )
    known = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), mine.private_key_pem.bytes(), mine.cert_chain_pems[0].bytes()
    )
    unknown = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with started(tmp_path, None, credentials=credentials) as (_, port, _):
        async with grpc.aio.secure_channel(f"localhost:{port}", known) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            assert (await stub.ServerLive(pb.ServerLiveRequest(), timeout=BOUND)).live
        async with grpc.aio.secure_channel(f"localhost:{port}", unknown) as channel:
            stub = pb_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ServerLive(pb.ServerLiveRequest(), timeout=BOUND)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_port_that_cannot_be_had_is_an_engine_error(tmp_path: Path, native: bool) -> None:
    """An address in use by somebody who does not share it is named in the error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match=f"127.0.0.1:{port}"):
            await listener_of(TwinPlane(), tmp_path, native).start("127.0.0.1", port)


async def test_ipv6_addresses_are_served(tmp_path: Path, native: bool) -> None:
    """A host with colons is an IPv6 address."""
    async with started(tmp_path, native, host="::1") as (_, port, _):
        assert await answers(port, "[::1]")


async def test_two_listeners_share_a_port_and_one_may_leave(tmp_path: Path, native: bool) -> None:
    """Once one has left the port, every new connection is served by the other.

    It leaves at once on the native front and a moment later on grpc.aio; what the kernel has
    handed it in that moment is reset, before a byte was sent.
    """
    async with (
        started(tmp_path, native) as (leaving, port, gone),
        started(tmp_path, native, port=port) as (_, same, staying),
    ):
        listening = len(listening_sockets())
        leaving.begin_drain()
        async with asyncio.timeout(BOUND):
            while len(listening_sockets()) == listening:
                await asyncio.sleep(0.01)
        results = [await infer_once(port) for _ in range(12)]

        assert same == port
        assert results == ["identity_fp32"] * 12
        assert gone.calls == []
        assert len(staying.calls) == 12


async def infer_once(port: int) -> str:
    """One request over a connection of its own."""
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        return str((await stub.ModelInfer(infer_request(), timeout=BOUND)).model_name)


async def test_a_drain_finishes_what_is_in_flight(tmp_path: Path, native: bool) -> None:
    """Requests that were sent before the drain are answered; new connections are refused."""
    async with wire(native, tmp_path) as served:
        calls = [
            asyncio.ensure_future(
                served.stub.ModelInfer(infer_request("waiting", identifier=str(n), columns=50_000))
            )
            for n in range(20)
        ]
        while served.plane.waiting < 20:
            served.plane.entered.clear()
            await asyncio.wait_for(served.plane.entered.wait(), BOUND)
        draining = asyncio.ensure_future(served.listener.drain(BOUND))
        await asyncio.sleep(0)
        refused = not await answers(served.port)
        served.plane.release.set()
        finished = await asyncio.gather(*calls)

        assert refused
        assert [answer.id for answer in finished] == [str(n) for n in range(20)]
        assert await draining == 0


async def test_a_drain_out_of_time_says_how_many_it_cut(tmp_path: Path, native: bool) -> None:
    """What is not answered in time is cancelled and counted."""
    async with wire(native, tmp_path) as served:
        calls = [
            asyncio.ensure_future(served.stub.ModelInfer(infer_request("waiting")))
            for _ in range(3)
        ]
        while served.plane.waiting < 3:
            served.plane.entered.clear()
            await asyncio.wait_for(served.plane.entered.wait(), BOUND)
        cut = await asyncio.wait_for(served.listener.drain(0.5), BOUND)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)

        assert cut == 3
        assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)
        assert (served.plane.waiting, served.plane.cancelled) == (0, 3)


async def test_a_drain_can_be_asked_for_twice_and_before_the_start(
    tmp_path: Path, native: bool
) -> None:
    """The second drain finds nothing to do; one without a start neither."""
    unstarted = listener_of(TwinPlane(), tmp_path, native)
    unstarted.begin_drain()
    async with wire(native, tmp_path) as served:
        await served.stub.ModelInfer(infer_request())
        results = [await served.listener.drain(2.0), await served.listener.drain(2.0)]

    assert results == [0, 0]
    assert await unstarted.drain(1.0) == 0


async def test_a_drain_sends_clients_away(tmp_path: Path, native: bool) -> None:
    """GOAWAY names no stream at first, so that a call that is on its way then is answered too."""
    async with wire(native, tmp_path) as served, peer(served.port) as one:
        await frame(one.reader)  # the server greets
        draining = asyncio.ensure_future(served.listener.drain(BOUND))
        kind = 0
        while kind != GOAWAY:
            kind, payload = await asyncio.wait_for(frame(one.reader), BOUND)
        one.writer.close()

        assert struct.unpack_from(">II", payload) == (2**31 - 1, 0)
        assert await asyncio.wait_for(draining, BOUND) == 0


async def frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next HTTP/2 frame: its type and payload."""
    length, kind = struct.unpack(">IB", b"\0" + await reader.readexactly(4))
    await reader.readexactly(5)
    return kind, await reader.readexactly(length)


async def test_calls_of_a_connection_that_is_sent_away_are_answered(tmp_path: Path) -> None:
    """Those in flight when the drain begins, and those that come before the client has heard."""
    async with wire(True, tmp_path) as served:
        waiting = asyncio.ensure_future(served.stub.ModelInfer(infer_request("waiting")))
        await asyncio.wait_for(served.plane.entered.wait(), BOUND)
        draining = asyncio.ensure_future(served.listener.drain(BOUND))
        quick = [asyncio.ensure_future(served.stub.ModelInfer(infer_request())) for _ in range(20)]
        answers = await asyncio.gather(*quick)
        served.plane.release.set()

        assert {answer.model_name for answer in answers} == {"identity_fp32"}
        assert (await waiting).model_name == "waiting"
        assert await asyncio.wait_for(draining, BOUND) == 0
