"""The gRPC listener over a real socket, on both servers."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from conformance.grpc_plane import TwinPlane, forbidden_in_errors
from conformance.grpc_wire import MAX_BODY, Wire, infer_request, wire
from grpc_health.v1 import health_pb2

from serving.protocol._generated import inference_pb2 as pb

Code = grpc.StatusCode


@pytest.fixture(params=["pygrpc_native", "grpc.aio"])
def native(request: pytest.FixtureRequest) -> bool:
    """Whether the listener is carried by the native front."""
    return request.param == "pygrpc_native"


@pytest.fixture
async def served(native: bool, tmp_path: Path) -> AsyncIterator[Wire]:
    """A plane on a port, open to everybody."""
    async with wire(native, tmp_path) as one:
        yield one


@pytest.fixture
async def guarded(native: bool, tmp_path: Path) -> AsyncIterator[Wire]:
    """A plane on a port that wants a token."""
    tokens = {"Bearer good": frozenset({"infer"}), "Bearer idle": frozenset()}
    async with wire(native, tmp_path, tokens=tokens) as one:
        yield one


async def refused(call: "grpc.aio.UnaryUnaryCall") -> grpc.aio.AioRpcError:
    """Await a call that must fail; give its error."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 20.0)
    return caught.value


async def test_an_inference_is_answered_raw(served: Wire) -> None:
    """ModelInfer gives model, version, id, parameters and raw contents."""
    answer = await served.stub.ModelInfer(infer_request(identifier="seven"))

    assert (answer.model_name, answer.model_version, answer.id) == ("identity_fp32", "1", "seven")
    assert answer.parameters["model_role"].string_param == "production"
    assert list(answer.outputs[0].shape) == [1, 4]
    assert np.frombuffer(answer.raw_output_contents[0], np.float32).tolist() == [0, 1, 2, 3]


async def test_health_and_readiness_follow_the_plane(served: Wire) -> None:
    """ServerLive and ServerReady answer separately."""
    served.plane.is_ready = False

    assert (await served.stub.ServerLive(pb.ServerLiveRequest())).live
    assert not (await served.stub.ServerReady(pb.ServerReadyRequest())).ready


async def test_a_loading_model_is_not_ready_and_an_unknown_one_is_not_found(served: Wire) -> None:
    """ModelReady says false for a known model and NOT_FOUND for any other."""
    ready = await served.stub.ModelReady(pb.ModelReadyRequest(name="simple"))
    loading = await served.stub.ModelReady(pb.ModelReadyRequest(name="loading"))
    error = await refused(served.stub.ModelReady(pb.ModelReadyRequest(name="nobody")))

    assert (ready.ready, loading.ready) == (True, False)
    assert error.code() is Code.NOT_FOUND
    assert (error.details() or "").startswith("Request for unknown model")


async def test_metadata_config_and_statistics_are_served(served: Wire) -> None:
    """Every question about a model has its answer."""
    await served.stub.ModelInfer(infer_request())
    server = await served.stub.ServerMetadata(pb.ServerMetadataRequest())
    model = await served.stub.ModelMetadata(pb.ModelMetadataRequest(name="simple"))
    config = (await served.stub.ModelConfig(pb.ModelConfigRequest(name="simple"))).config
    statistics = await served.stub.ModelStatistics(pb.ModelStatisticsRequest(name="identity_fp32"))

    assert (server.name, server.version) == ("twin", "1.2.3")
    assert [list(tensor.shape) for tensor in model.inputs] == [[-1, 16], [-1, 16]]
    assert (config.max_batch_size, list(config.input[0].dims)) == (8, [16])
    assert [entry.inference_count for entry in statistics.model_stats] == [1]


async def test_the_repository_index_lists_what_is_not_ready_unless_told_otherwise(
    served: Wire,
) -> None:
    """`ready` narrows the index."""
    everything = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest())
    ready = await served.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))

    assert {entry.state for entry in everything.models} == {"READY", "LOADING"}
    assert {entry.state for entry in ready.models} == {"READY"}


async def test_settings_are_read_and_not_written(served: Wire) -> None:
    """TraceSetting and LogSettings answer; with a value they are UNIMPLEMENTED."""
    trace = await served.stub.TraceSetting(pb.TraceSettingRequest())
    log = await served.stub.LogSettings(pb.LogSettingsRequest())
    change = pb.TraceSettingRequest()
    change.settings["trace_level"].value.append("TIMESTAMPS")
    silence = pb.LogSettingsRequest()
    silence.settings["log_info"].bool_param = False

    assert list(trace.settings["trace_level"].value) == ["OFF"]
    assert log.settings["log_info"].bool_param is True
    assert (await refused(served.stub.TraceSetting(change))).code() is Code.UNIMPLEMENTED
    assert (await refused(served.stub.LogSettings(silence))).code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="simple")),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="simple")),
        ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
        ("SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest(name="a")),
        ("SystemSharedMemoryUnregister", pb.SystemSharedMemoryUnregisterRequest()),
        ("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest()),
        ("CudaSharedMemoryRegister", pb.CudaSharedMemoryRegisterRequest(name="a")),
        ("CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest()),
    ],
)
async def test_admin_verbs_and_shared_memory_are_unimplemented(
    served: Wire, method: str, message: object
) -> None:
    """The data port offers neither, whoever asks."""
    error = await refused(getattr(served.stub, method)(message))

    assert error.code() is Code.UNIMPLEMENTED
    assert error.details()


async def test_an_unknown_method_is_unimplemented(served: Wire) -> None:
    """A method of no service does not reach us."""
    error = await refused(served.channel.unary_unary("/inference.GRPCInferenceService/Nope")(b""))

    assert error.code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("InvalidRequest", Code.INVALID_ARGUMENT),
        ("Unauthenticated", Code.UNAUTHENTICATED),
        ("PermissionDenied", Code.PERMISSION_DENIED),
        ("ModelNotFound", Code.NOT_FOUND),
        ("ModelNotReady", Code.UNAVAILABLE),
        ("FeaturesUnavailable", Code.UNAVAILABLE),
        ("DeadlineExceeded", Code.DEADLINE_EXCEEDED),
        ("InferenceFailed", Code.INTERNAL),
        ("Unimplemented", Code.UNIMPLEMENTED),
    ],
)
async def test_an_error_of_ours_keeps_its_code_and_text(
    served: Wire, name: str, code: grpc.StatusCode
) -> None:
    """The status table decides the code; the message is the error's own."""
    error = await refused(served.stub.ModelInfer(infer_request(f"fail_{name}")))

    assert (error.code(), error.details()) == (code, f"on purpose: {name}")


async def test_an_overload_says_when_to_come_back(served: Wire, native: bool) -> None:
    """RESOURCE_EXHAUSTED carries retry-after, and gRPC's own key where it may be set."""
    metadata = (("x-request-id", "r-3"),)
    error = await refused(
        served.stub.ModelInfer(infer_request("fail_Overloaded"), metadata=metadata)
    )
    trailing = dict(error.trailing_metadata())

    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert (trailing["retry-after"], trailing["x-request-id"]) == ("1", "r-3")
    assert trailing.get("grpc-retry-pushback-ms") == (None if native else "250")


async def test_an_unexpected_error_is_logged_and_not_told(
    served: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """The client reads 'internal error'; the log has the traceback."""
    with caplog.at_level(logging.ERROR):
        error = await refused(served.stub.ModelInfer(infer_request("fail_unexpected")))

    assert (error.code(), error.details()) == (Code.INTERNAL, "internal error")
    assert not forbidden_in_errors(str(error.trailing_metadata()))
    assert any(record.exc_info for record in caplog.records)


async def test_a_cancellation_nobody_asked_for_is_an_internal_error(served: Wire) -> None:
    """A call whose work cancels itself is answered; grpc.aio alone would leave it hanging."""
    error = await refused(served.stub.ModelInfer(infer_request("fail_cancelled")))

    assert (error.code(), error.details()) == (Code.INTERNAL, "internal error")


async def test_bytes_that_are_no_message_are_the_clients_mistake(served: Wire) -> None:
    """Malformed protobuf is INVALID_ARGUMENT, and the connection lives on."""
    call = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    error = await refused(call(b"\xff\xff\xff\xff"))

    assert error.code() is Code.INVALID_ARGUMENT
    assert error.details() == "the message is not a valid inference.ModelInferRequest"
    assert (await served.stub.ModelInfer(infer_request())).model_name == "identity_fp32"


async def test_a_request_that_cannot_be_decoded_is_counted_under_a_configured_label(
    served: Wire,
) -> None:
    """Refusals before the pipeline are counted; a model name nobody configured is no label."""
    for model in ("identity_fp32", "made_up_by_the_client"):
        message = infer_request(model)
        message.inputs[0].shape[:] = [1, 5]
        assert (await refused(served.stub.ModelInfer(message))).code() is Code.INVALID_ARGUMENT

    assert served.rejected() == {
        ("identity_fp32", "invalid_request"): 1.0,
        ("_unknown", "invalid_request"): 1.0,
    }


async def test_an_error_text_survives_the_wire_whatever_it_holds(served: Wire) -> None:
    """Non-ASCII text and line breaks reach the client as they were."""
    message = infer_request()
    message.inputs[0].datatype = "größe\n😀"
    error = await refused(served.stub.ModelInfer(message))

    assert error.code() is Code.INVALID_ARGUMENT
    assert "größe" in (error.details() or "")


async def test_a_message_at_the_limit_passes_and_one_over_it_does_not(served: Wire) -> None:
    """`limits.max_body` bounds a message; the next request is answered again."""
    message = infer_request(columns=(MAX_BODY // 4) - 64)
    answer = await served.stub.ModelInfer(message)
    message = infer_request(columns=MAX_BODY // 4)
    error = await refused(served.stub.ModelInfer(message))

    assert len(answer.raw_output_contents[0]) == MAX_BODY - 256
    assert error.code() is Code.RESOURCE_EXHAUSTED
    assert (await served.stub.ModelInfer(infer_request())).id == ""


async def test_a_gzip_message_is_read_and_may_not_inflate_past_the_limit(served: Wire) -> None:
    """Both servers inflate gzip and apply the limit to what comes out."""
    gzip = grpc.Compression.Gzip
    answer = await served.stub.ModelInfer(infer_request(columns=1000), compression=gzip)
    bomb = infer_request(columns=1)
    bomb.raw_input_contents[0] = bytes(8 * MAX_BODY)
    error = await refused(served.stub.ModelInfer(bomb, compression=gzip))

    assert list(answer.outputs[0].shape) == [1, 1000]
    assert error.code() is Code.RESOURCE_EXHAUSTED


async def test_a_deflate_message_is_read_or_clearly_refused(served: Wire, native: bool) -> None:
    """grpc.aio inflates it; the native front answers UNIMPLEMENTED and names deflate."""
    call = served.stub.ModelInfer(infer_request(), compression=grpc.Compression.Deflate)
    if not native:
        assert (await call).model_name == "identity_fp32"
        return
    error = await refused(call)

    assert error.code() is Code.UNIMPLEMENTED
    assert "deflate" in (error.details() or "")


async def test_too_much_metadata_is_refused(served: Wire) -> None:
    """Metadata beyond 8 KiB ends the call, not the connection."""
    error = await refused(
        served.stub.ModelInfer(infer_request(), metadata=(("x-request-id", "a" * 20_000),))
    )

    # The native front answers HTTP 431, which a gRPC client reads as UNKNOWN.
    assert error.code() in {Code.RESOURCE_EXHAUSTED, Code.UNKNOWN}
    assert served.plane.calls == []
    assert (await served.stub.ModelInfer(infer_request())).model_name == "identity_fp32"


async def test_what_the_caller_says_in_metadata_reaches_the_call(served: Wire) -> None:
    """Deadline, request id, trace context and wanted keys are read; other keys are not."""
    await served.stub.ModelInfer(
        infer_request(),
        timeout=5.0,
        metadata=(
            ("x-request-id", "r-1"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("tracestate", "a=b"),
            ("x-sluice-version", "v2"),
            ("x-other", "ignored"),
            ("blob-bin", b"\x00\xff"),
        ),
    )
    [call] = served.plane.calls

    assert call.protocol == "grpc"
    assert call.timeout is not None
    assert 0 < call.timeout < 5.5  # gRPC rounds up what it sends
    assert (call.request_id, call.tracestate) == ("r-1", "a=b")
    assert call.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert call.headers == {"x-sluice-version": "v2"}
    assert call.arrived <= call.decoded


async def test_a_call_without_metadata_has_no_deadline(served: Wire) -> None:
    """Nothing stated is None, on both servers."""
    await served.stub.ModelInfer(infer_request())
    [call] = served.plane.calls

    assert (call.timeout, call.authorization, call.headers) == (None, None, {})


async def test_the_shortest_stated_timeout_wins(served: Wire) -> None:
    """`x-request-timeout` shortens `grpc-timeout`; nonsense there is INVALID_ARGUMENT."""
    await served.stub.ModelInfer(
        infer_request(), timeout=5.0, metadata=(("x-request-timeout", "100ms"),)
    )
    error = await refused(
        served.stub.ModelInfer(infer_request(), metadata=(("x-request-timeout", "soon"),))
    )

    assert served.plane.calls[0].timeout == pytest.approx(0.1)
    assert error.code() is Code.INVALID_ARGUMENT


async def test_the_request_id_comes_back(served: Wire) -> None:
    """An `x-request-id` is returned with the status, good or bad."""
    metadata = (("x-request-id", "r-2"),)
    call = served.stub.ModelInfer(infer_request(), metadata=metadata)
    await call
    error = await refused(served.stub.ModelInfer(infer_request("nobody"), metadata=metadata))

    assert dict(await call.trailing_metadata())["x-request-id"] == "r-2"
    assert dict(error.trailing_metadata())["x-request-id"] == "r-2"


@pytest.mark.parametrize(
    ("credential", "code"),
    [
        (None, Code.UNAUTHENTICATED),
        ("Bearer bad", Code.UNAUTHENTICATED),
        ("Bearer idle", Code.PERMISSION_DENIED),
    ],
)
@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("ModelInfer", infer_request()),
        ("ModelReady", pb.ModelReadyRequest(name="simple")),
        ("ServerMetadata", pb.ServerMetadataRequest()),
        ("ModelMetadata", pb.ModelMetadataRequest(name="simple")),
        ("ModelConfig", pb.ModelConfigRequest(name="simple")),
        ("ModelStatistics", pb.ModelStatisticsRequest()),
        ("RepositoryIndex", pb.RepositoryIndexRequest()),
        ("TraceSetting", pb.TraceSettingRequest()),
        ("LogSettings", pb.LogSettingsRequest()),
    ],
)
async def test_without_a_role_only_health_is_answered(
    guarded: Wire, method: str, message: object, credential: str | None, code: grpc.StatusCode
) -> None:
    """Everything but health, liveness and readiness wants the infer role."""
    metadata = (("authorization", credential),) if credential else ()
    error = await refused(getattr(guarded.stub, method)(message, metadata=metadata))

    assert error.code() is code
    assert guarded.plane.calls == []
    assert (await guarded.stub.ServerLive(pb.ServerLiveRequest())).live
    assert (await guarded.stub.ServerReady(pb.ServerReadyRequest())).ready


async def test_a_token_with_the_role_is_let_in(guarded: Wire) -> None:
    """The authorization metadata is the HTTP header's value."""
    good = (("authorization", "Bearer good"),)
    answer = await guarded.stub.ModelInfer(infer_request(), metadata=good)
    twice = await refused(guarded.stub.ModelInfer(infer_request(), metadata=[*good, *good]))

    assert answer.model_name == "identity_fp32"
    assert guarded.plane.calls[0].authorization == "Bearer good"
    assert twice.code() is Code.UNAUTHENTICATED


async def test_a_deadline_that_passes_ends_the_work(served: Wire) -> None:
    """The client reads DEADLINE_EXCEEDED and the plane's task is given up."""
    error = await refused(served.stub.ModelInfer(infer_request("waiting"), timeout=0.3))
    await asyncio.wait_for(served.plane.left.wait(), 10.0)

    assert error.code() is Code.DEADLINE_EXCEEDED
    assert served.plane.waiting == 0


async def test_a_cancelled_call_frees_its_slot(served: Wire) -> None:
    """Cancelling the RPC cancels the task that waits for the answer."""
    call = served.stub.ModelInfer(infer_request("waiting"))
    running = asyncio.ensure_future(call)
    await asyncio.wait_for(served.plane.entered.wait(), 10.0)
    call.cancel()
    await asyncio.wait_for(served.plane.left.wait(), 10.0)

    assert served.plane.cancelled == 1
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await served.stub.ModelInfer(infer_request())).model_name == "identity_fp32"


async def test_many_calls_on_one_connection_run_together(served: Wire) -> None:
    """Forty requests wait at once and each gets its own answer."""
    calls = [
        asyncio.ensure_future(served.stub.ModelInfer(infer_request("waiting", identifier=str(n))))
        for n in range(40)
    ]
    while served.plane.waiting < 40:
        served.plane.entered.clear()
        await asyncio.wait_for(served.plane.entered.wait(), 10.0)
    served.plane.release.set()

    assert [answer.id for answer in await asyncio.gather(*calls)] == [str(n) for n in range(40)]


async def test_the_standard_health_service_answers(served: Wire) -> None:
    """Check says SERVING or NOT_SERVING, and NOT_FOUND for a service nobody serves."""
    check = served.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    serving = [
        (await check(health_pb2.HealthCheckRequest(service=service))).status
        for service in ("", "inference.GRPCInferenceService")
    ]
    served.plane.is_ready = False
    down = await check(health_pb2.HealthCheckRequest())
    error = await refused(check(health_pb2.HealthCheckRequest(service="nobody")))

    assert serving == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert down.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert error.code() is Code.NOT_FOUND


async def test_a_health_watch_hears_of_the_drain(native: bool, tmp_path: Path) -> None:
    """Watch sends the status now, and NOT_SERVING when the drain begins."""
    async with wire(native, tmp_path) as served:
        watch = served.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest())
        heard: list[int] = []
        serving = asyncio.Event()

        async def listen() -> None:
            async for answer in watch:
                heard.append(answer.status)
                serving.set()

        listening = asyncio.ensure_future(listen())
        await asyncio.wait_for(serving.wait(), 10.0)
        served.listener.begin_drain()
        await asyncio.wait_for(listening, 10.0)

        assert heard == [
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        ]


def test_the_twin_satisfies_the_protocol_it_stands_for() -> None:
    """The plane these tests use has every method of the real one."""
    from serving.worker.plane import Plane

    missing = [
        name for name in vars(Plane) if not name.startswith("_") and not hasattr(TwinPlane, name)
    ]

    assert missing == []
