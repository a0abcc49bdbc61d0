"""inference.GRPCInferenceService over the plane: bytes in, bytes out, every refusal a status.

Messages are decoded here and not by the server, so that bytes which are no message are the
client's mistake (INVALID_ARGUMENT) on both servers, and nothing is decoded for a caller who
may not ask.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from serving.errors import (
    InvalidRequest,
    PermissionDenied,
    ServingError,
    Unauthenticated,
    Unimplemented,
)
from serving.metrics import MetricsFile
from serving.protocol import grpc as codec
from serving.protocol import status
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.tensors import TensorLimits
from serving.types import Call, InferRequest
from serving.worker.grpc.call import (
    CallReader,
    Context,
    Edge,
    InFlight,
    echo_request_id,
    failure_of,
    log_unexpected,
    parse,
    tell_trace,
)
from serving.worker.grpc.stream import InferenceStreams
from serving.worker.plane import Plane
from serving.worker.reply import Pending, Reply

__all__ = ["INFERENCE_SERVICE", "MODEL_INFER", "Inference"]

INFERENCE_SERVICE: Final = "inference.GRPCInferenceService"
MODEL_INFER: Final = f"/{INFERENCE_SERVICE}/ModelInfer"

Method = Callable[[bytes, Context], Coroutine[Any, Any, bytes]]
Query = tuple[Callable[[], Any], bool, Callable[[Plane, Any], Message]]
"""Request class, whether the caller must be allowed to infer, and what answers."""


def _model_ready(plane: Plane, ask: pb.ModelReadyRequest) -> Message:
    return codec.encode_model_ready(plane.model_ready(ask.name, ask.version))


def _model_metadata(plane: Plane, ask: pb.ModelMetadataRequest) -> Message:
    return codec.encode_model_metadata(plane.model_metadata(ask.name, ask.version))


def _model_config(plane: Plane, ask: pb.ModelConfigRequest) -> Message:
    return codec.encode_model_config(plane.model_config(ask.name, ask.version))


def _model_statistics(plane: Plane, ask: pb.ModelStatisticsRequest) -> Message:
    return codec.encode_model_statistics(plane.model_statistics(ask.name, ask.version))


def _repository_index(plane: Plane, ask: pb.RepositoryIndexRequest) -> Message:
    return codec.encode_repository_index(plane.repository_index(ready_only=ask.ready))


def _trace_setting(plane: Plane, ask: pb.TraceSettingRequest) -> Message:
    _only_reads(ask.settings)
    return codec.encode_trace_settings(plane.trace_settings(ask.model_name))


def _log_settings(plane: Plane, ask: pb.LogSettingsRequest) -> Message:
    _only_reads(ask.settings)
    return codec.encode_log_settings(plane.log_settings())


def _only_reads(settings: object) -> None:
    if settings:
        raise Unimplemented("settings can be read here; changing them is an admin verb")


_QUERIES: Final[dict[str, Query]] = {
    "ServerLive": (pb.ServerLiveRequest, False, lambda plane, _: codec.encode_live(plane.live())),
    "ServerReady": (
        pb.ServerReadyRequest,
        False,
        lambda plane, _: codec.encode_ready(plane.ready()),
    ),
    "ServerMetadata": (
        pb.ServerMetadataRequest,
        True,
        lambda plane, _: codec.encode_server_metadata(plane.server_metadata()),
    ),
    "ModelReady": (pb.ModelReadyRequest, True, _model_ready),
    "ModelMetadata": (pb.ModelMetadataRequest, True, _model_metadata),
    "ModelConfig": (pb.ModelConfigRequest, True, _model_config),
    "ModelStatistics": (pb.ModelStatisticsRequest, True, _model_statistics),
    "RepositoryIndex": (pb.RepositoryIndexRequest, True, _repository_index),
    "TraceSetting": (pb.TraceSettingRequest, True, _trace_setting),
    "LogSettings": (pb.LogSettingsRequest, True, _log_settings),
}

_REFUSED: Final = {
    "RepositoryModelLoad": "loading a model is an admin verb; use the admin port",
    "RepositoryModelUnload": "unloading a model is an admin verb; use the admin port",
    "SystemSharedMemoryStatus": "shared memory is not served",
    "SystemSharedMemoryRegister": "shared memory is not served",
    "SystemSharedMemoryUnregister": "shared memory is not served",
    "CudaSharedMemoryStatus": "shared memory is not served",
    "CudaSharedMemoryRegister": "shared memory is not served",
    "CudaSharedMemoryUnregister": "shared memory is not served",
}

_REASON: Final[dict[type[ServingError], str]] = {
    Unauthenticated: "unauthenticated",
    PermissionDenied: "permission_denied",
}


class Inference:
    """The service's methods. `in_flight` counts requests being answered, those of streams too."""

    def __init__(
        self,
        plane: Plane,
        edge: Edge,
        calls: CallReader,
        limits: TensorLimits,
        *,
        metrics: MetricsFile,
        in_flight: InFlight,
    ) -> None:
        self.streams = InferenceStreams(self._answer_in_stream)
        self._plane = plane
        self._edge = edge
        self._calls = calls
        self._limits = limits
        self._metrics = metrics
        self._in_flight = in_flight
        self._plain = codec.PlainRequests()

    def methods(self) -> dict[str, "grpc.RpcMethodHandler[bytes, bytes]"]:
        """Every method of the service, bytes in and bytes out."""
        answering = self._edge.answering
        unary = grpc.unary_unary_rpc_method_handler
        methods = {
            "ModelInfer": unary(self.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(answering(self.stream)),
        }
        for name, query in _QUERIES.items():
            methods[name] = unary(answering(self._querying(*query)))
        for name, reason in _REFUSED.items():
            methods[name] = unary(answering(_refusing(reason)))
        return methods

    async def infer(self, message: bytes, context: Context) -> bytes:
        """ModelInfer. Cancelling the call cancels the request."""
        self._in_flight.enter()
        try:
            call = self._calls.read(context)
            if call.request_id:
                echo_request_id(call, context)
            request = self._admit(message, call)
            response = await self._plane.infer(request, call)
            if call.traceresponse is not None:
                tell_trace(call.traceresponse, context)
            return codec.encode_infer(request, response)
        except BaseException as error:  # noqa: BLE001 - the edge: every caller is answered
            # Here and not around this method: one coroutine less for every request.
            return await self._edge.refuse(context, failure_of(error))
        finally:
            self._in_flight.leave()

    def begin(self, message: bytes, context: Context, reply: Reply) -> Pending:
        """ModelInfer for a caller without a task, who counts it as in flight and is told.

        What is refused at once is raised.
        """
        call = self._calls.read(context)
        if call.request_id:
            echo_request_id(call, context)
        return self._plane.begin(self._admit(message, call), call, reply)

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """ModelStreamInfer. The credential is checked before the first request is read."""
        self._plane.authorize(self._calls.read(context).authorization, "infer")
        await self.streams.serve(messages, context)

    async def _answer_in_stream(self, message: bytes, context: Context) -> bytes:
        request: InferRequest | None = None
        self._in_flight.enter()
        try:
            call = self._calls.read(context)
            request = self._admit(message, call)
            response = await self._plane.infer(request, call)
            return codec.encode_stream(request, response)
        except BaseException as error:  # noqa: BLE001 - the edge: every caller is answered
            failure = failure_of(error)
            log_unexpected(failure)
            identifier = request.id if request is not None else _named(message).id
            return codec.encode_stream_error(status.public_message(failure), identifier)
        finally:
            self._in_flight.leave()

    def _admit(self, message: bytes, call: Call) -> InferRequest:
        """Decode for those who may ask; a refusal here never reaches the pipeline, so count it."""
        try:
            call.principal = self._plane.authorize(call.authorization, "infer")
            request = self._plain.decode(message)
            if request is None:
                parsed = parse(pb.ModelInferRequest, message)
                request = codec.decode_infer(parsed, self._limits)
                self._plain.learn(message, parsed, request)
        except ServingError as error:
            model = _named(message).model_name
            self._metrics.counter(
                "sluice_rejected_total",
                # Labels come from the configuration, never from the request alone.
                model=model if model in self._plane.model_names() else "_unknown",
                reason=_REASON.get(type(error), "invalid_request"),
            ).inc()
            raise
        call.decoded = self._calls.now()
        return request

    def _querying(
        self, kind: Callable[[], Any], guarded: bool, answer: Callable[[Plane, Any], Message]
    ) -> Method:
        async def query(message: bytes, context: Context) -> bytes:
            if guarded:
                self._plane.authorize(self._calls.read(context).authorization, "infer")
            return answer(self._plane, parse(kind, message)).SerializeToString()

        return query


def _named(message: bytes) -> pb.ModelInferRequest:
    """What a refused message can be told by, nothing if it is none at all."""
    try:
        return parse(pb.ModelInferRequest, message)
    except InvalidRequest:
        return pb.ModelInferRequest()


def _refusing(reason: str) -> Method:
    async def refused(_message: bytes, _context: Context) -> bytes:
        raise Unimplemented(reason)

    return refused
