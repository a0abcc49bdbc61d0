"""One inference over HTTP or gRPC, as any client would do it."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import grpc
import httpx
import msgspec
import orjson

from serving.cli.admin_address import local_listener, running_engine
from serving.cli.client import explain, http_client, message_of
from serving.cli.infer_inputs import LIMITS
from serving.cli.output import CommandError, Unreachable
from serving.cli.tls import ClientTls
from serving.cli.where import Where
from serving.errors import InvalidRequest
from serving.protocol import rest, tensors
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated.inference_pb2_grpc import GRPCInferenceServiceStub
from serving.types import Tensor, TensorMetadata

__all__ = ["Answer", "Call", "GrpcCall", "HttpCall", "Target", "find"]

_DEFAULTS = {"http": "127.0.0.1:8000", "grpc": "127.0.0.1:8001"}
_BINARY_ONLY = ("FP16", "BF16")
_SECONDS = 30.0
"""Longer than any sensible deadline of a model."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A data-plane listener: its address, and how to speak TLS there; None: it does not."""

    address: str
    tls: ClientTls | None = None
    token: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The protocol's own answer (as JSON has it), and the time it took in seconds."""

    body: dict[str, Any]
    seconds: float


class Call(Protocol):
    """A connection to one listener; a context manager."""

    def inputs(self, model: str, version: str) -> list[TensorMetadata]:
        """What the model takes. Raises CommandError, Unreachable."""
        ...

    def infer(
        self, model: str, version: str, request: Sequence[Tensor] | bytes, deadline: float | None
    ) -> Answer:
        """Ask; `request` is tensors, or a whole JSON body. Raises CommandError, Unreachable."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


def find(where: Where, protocol: str, url: str | None) -> Target:
    """Where the listener is: `url`, what an engine wrote on this machine, or the usual port."""
    token = where.token()
    if url is not None:
        scheme, separator, address = url.rpartition("://")
        if separator and scheme not in ("http", "https", "grpc", "grpcs"):
            raise CommandError(f"`{url}` is not an address; write http://HOST:PORT or HOST:PORT")
        tls = where.tls if scheme in ("https", "grpcs") else None
        return Target(address=address.rstrip("/"), tls=tls, token=token)
    report = running_engine(where.data_directory())
    if report is None:
        return Target(address=_DEFAULTS[protocol], token=token)
    address, tls = local_listener(report, protocol, where.tls)
    return Target(address=address, tls=tls, token=token)


# --- HTTP -----------------------------------------------------------------------------------


class HttpCall:
    """`Call` over HTTP with JSON bodies."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._http = http_client(
            f"{'http' if target.tls is None else 'https'}://{target.address}",
            token=target.token,
            tls=target.tls or ClientTls(),
            seconds=_SECONDS,
        )

    def inputs(self, model: str, version: str) -> list[TensorMetadata]:
        """See `Call`."""
        answer = self._ask("GET", _path(model, version))
        return [
            TensorMetadata(one["name"], one["datatype"], tuple(one["shape"]))
            for one in orjson.loads(answer.content)["inputs"]
        ]

    def infer(
        self, model: str, version: str, request: Sequence[Tensor] | bytes, deadline: float | None
    ) -> Answer:
        """See `Call`."""
        body = request if isinstance(request, bytes) else _json_body(request)
        headers = {"content-type": "application/json"}
        if deadline is not None:
            headers["x-request-timeout"] = f"{deadline:.6f}"
        started = time.perf_counter()
        answer = self._ask("POST", _path(model, version) + "/infer", body, headers)
        seconds = time.perf_counter() - started
        return Answer(body=orjson.loads(answer.content), seconds=seconds)

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, path, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise _nobody(self._target, explain(error)) from error
        if answer.status_code != 200:
            message = message_of(answer) or f"answered {answer.status_code}, not as a gateway does"
            raise CommandError(message, hint=_hint(answer.status_code))
        return answer

    def close(self) -> None:
        """See `Call`."""
        self._http.close()


def _path(model: str, version: str) -> str:
    base = f"/v2/models/{quote(model, safe='')}"
    return base + (f"/versions/{quote(version, safe='')}" if version else "")


def _json_body(request: Sequence[Tensor]) -> bytes:
    for tensor in request:
        if tensor.datatype in _BINARY_ONLY:
            raise CommandError(f"JSON cannot carry `{tensor.name}` ({tensor.datatype}); add --grpc")
    return orjson.dumps(
        {
            "inputs": [
                {
                    "name": tensor.name,
                    "datatype": tensor.datatype,
                    "shape": list(tensor.shape),
                    "data": tensors.to_json(tensor),
                }
                for tensor in request
            ]
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _hint(status: int) -> str:
    if status in (401, 403):
        return "give a token: --token-file or $SLUICE_TOKEN"
    return ""


def _nobody(target: Target, reason: str, details: str = "") -> Unreachable:
    """`details` are the library's own words, which say more than a person wants to read."""
    hint = "`sluice up DIR` starts one; --url asks one elsewhere"
    if target.tls is not None:
        hint = target.tls.hint(details or reason, hint)
    return Unreachable(f"no gateway answers at {target.address}: {reason}", hint=hint)


# --- gRPC -----------------------------------------------------------------------------------


class GrpcCall:
    """`Call` over gRPC with raw tensors."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._metadata = (("authorization", f"Bearer {target.token}"),) if target.token else ()
        if target.tls is None:
            self._channel = grpc.insecure_channel(target.address)
        else:
            self._channel = grpc.secure_channel(target.address, target.tls.grpc_credentials())
        self._stub = GRPCInferenceServiceStub(self._channel)

    def inputs(self, model: str, version: str) -> list[TensorMetadata]:
        """See `Call`."""
        answer = self._ask(
            self._stub.ModelMetadata, pb.ModelMetadataRequest(name=model, version=version), _SECONDS
        )
        return [TensorMetadata(one.name, one.datatype, tuple(one.shape)) for one in answer.inputs]

    def infer(
        self, model: str, version: str, request: Sequence[Tensor] | bytes, deadline: float | None
    ) -> Answer:
        """See `Call`."""
        if isinstance(request, bytes):
            try:
                decoded = rest.decode_infer(
                    request, None, model=model, version=version, limits=LIMITS
                )
            except InvalidRequest as error:
                raise CommandError(error.message) from error
            request = decoded.inputs
        message = pb.ModelInferRequest(model_name=model, model_version=version)
        for tensor in request:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))
            message.raw_input_contents.append(bytes(tensors.to_raw(tensor)))
        started = time.perf_counter()
        answer = self._ask(
            self._stub.ModelInfer, message, _SECONDS if deadline is None else deadline
        )
        return Answer(body=_as_json(answer), seconds=time.perf_counter() - started)

    def _ask(self, method: Any, message: Any, timeout: float) -> Any:
        try:
            return method(message, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            code, details = error.code(), error.details() or ""
            if code is grpc.StatusCode.UNAVAILABLE and "connect" in details.lower():
                raise _nobody(self._target, "the connection failed", details) from error
            hint = _hint(401) if code is grpc.StatusCode.UNAUTHENTICATED else ""
            raise CommandError(details or code.name, hint=hint) from error

    def close(self) -> None:
        """See `Call`."""
        self._channel.close()


def _as_json(answer: Any) -> dict[str, Any]:
    """Write a gRPC answer as HTTP would have."""
    outputs = []
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        tensor = tensors.from_raw(output.name, output.datatype, list(output.shape), raw, LIMITS)
        shown = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        outputs.append({**shown, "data": _values(tensor)})
    return {
        "model_name": answer.model_name,
        "model_version": answer.model_version,
        "parameters": {
            name: getattr(value, value.WhichOneof("parameter_choice"))
            for name, value in answer.parameters.items()
        },
        "outputs": outputs,
    }


def _values(tensor: Tensor) -> list[Any]:
    if tensor.datatype == "BYTES":
        return [bytes(one).decode("utf-8", "backslashreplace") for one in tensor.data.flat]
    if tensor.datatype == "BF16":
        bits = tensor.data.astype("<u4") << 16
        return list(bits.view("<f4").reshape(-1).tolist())
    return list(tensor.data.reshape(-1).tolist())
