"""One call over HTTP or gRPC from a Locust user, and what the target says of its models.

Runs in Locust, where sockets are gevent's: import it after Locust.
"""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final

import gevent
import grpc
import msgspec
import numpy as np
from locust.contrib.fasthttp import FastHttpSession
from locust_traffic import Asked
from numpy.typing import NDArray

from serving.errors import InvalidRequest
from serving.loadtest.answers import Facts, Wrong, read_grpc, read_json
from serving.loadtest.target import TargetUnreachable
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated.inference_pb2_grpc import GRPCInferenceServiceStub
from serving.protocol.rest_client import decode_error, decode_metadata, encode_question
from serving.protocol.tensors import to_raw
from serving.types import Tensor, TensorMetadata

__all__ = ["Answer", "GrpcCaller", "HttpCaller", "Known", "TargetRefuses", "learn"]

_LEARN_SECONDS: Final = 10.0
_JSON_LENGTH: Final = "Inference-Header-Content-Length"


class TargetRefuses(Exception):
    """The target answers, but cannot be asked what the users need to know."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. `status` as `locust_record.Outcome` has it."""

    status: str
    answered: bool
    problem: str = ""
    facts: Facts = Facts()
    bytes_sent: int = 0
    bytes_received: int = 0


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the target describes it; `most` is its `max_batch_size`, 0 if it does not say."""

    model: str
    inputs: Sequence[TensorMetadata]
    outputs: Sequence[str]
    most: int = 0


# --- what there is ---------------------------------------------------------------------------


def learn(host: str, models: Sequence[str], token: str = "") -> list[Known]:
    """Ask a server what its models take; of all ready models if none is named.

    Which inputs may be left out is in the configuration extension; without it all are sent.

    Raises:
        TargetUnreachable: nobody answers there.
        TargetRefuses: a model is unknown, no model is ready, or an answer makes no sense.
    """
    return [_known(host, name, token) for name in models or _ready(host, token)]


def _ready(host: str, token: str) -> list[str]:
    entries = json.loads(_asked(host, "/v2/repository/index", token, body=b"{}"))
    names = [entry["name"] for entry in entries if entry.get("state") == "READY"]
    if not names:
        raise TargetRefuses(f"{host} has no model that is ready; say which with --models")
    return list(dict.fromkeys(names))


def _known(host: str, model: str, token: str) -> Known:
    try:
        inputs, outputs = decode_metadata(_asked(host, f"/v2/models/{model}", token))
    except InvalidRequest as error:
        raise TargetRefuses(f"{host}, model `{model}`: {error.message}") from error
    optional: set[str] = set()
    most = 0
    try:
        config = json.loads(_asked(host, f"/v2/models/{model}/config", token))
        optional = {entry["name"] for entry in config["input"] if entry.get("optional")}
        most = int(config.get("max_batch_size", 0))
    except (TargetRefuses, ValueError, KeyError, TypeError):
        pass  # an extension that this server does not offer
    inputs = [msgspec.structs.replace(one, optional=one.name in optional) for one in inputs]
    return Known(model=model, inputs=inputs, outputs=[one.name for one in outputs], most=most)


def _asked(host: str, path: str, token: str, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(host.rstrip("/") + path, body)  # noqa: S310 - http or https
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=_LEARN_SECONDS) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        with error:
            words = decode_error(error.read()) or error.reason
        raise TargetRefuses(f"{host}{path} answers {error.code}: {words}") from error
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error
        raise TargetUnreachable(f"nobody answers at {host}: {why}") from error


# --- HTTP ------------------------------------------------------------------------------------


class HttpCaller:
    """Calls of one user over HTTP."""

    def __init__(self, session: FastHttpSession, headers: Mapping[str, str]) -> None:
        self._session = session
        self._headers = headers

    def call(
        self,
        kind: Asked,
        feed: Mapping[str, NDArray[Any]],
        *,
        binary: bool,
        left: float | None,
    ) -> Answer:
        """Ask once and never again; `left` are seconds to the deadline, sent along."""
        parts, json_length = encode_question(
            feed, kind.inputs, kind.outputs, parameters={}, binary=binary
        )
        body = b"".join(parts)
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            **self._headers,
            **kind.headers,
        }
        if json_length is not None:
            headers |= {_JSON_LENGTH: str(json_length), "Content-Type": "application/octet-stream"}
        if left is not None:
            headers["x-request-timeout"] = f"{max(left, 1e-6):.6f}"
        version = f"/versions/{kind.version}" if kind.version else ""
        with self._session.request(
            "POST",
            f"/v2/models/{kind.model}{version}/infer",
            name=kind.name,
            data=body,
            headers=headers,
            catch_response=True,
            allow_redirects=False,
        ) as response:
            answer = _read(response, kind, feed, len(body))
            if answer.status == "200":
                response.success()
            else:
                response.failure(f"{answer.status}: {answer.problem}")
            return answer


def _read(response: Any, kind: Asked, feed: Mapping[str, NDArray[Any]], sent: int) -> Answer:
    if not response.status_code:
        status, words = _without_answer(response.error)
        return Answer(status=status, answered=False, problem=words, bytes_sent=sent)
    content: bytes = response.content or b""
    sizes = {"bytes_sent": sent, "bytes_received": len(content)}
    if response.status_code != 200:
        words = decode_error(content) or content[:200].decode(errors="replace")
        return Answer(status=str(response.status_code), answered=True, problem=words, **sizes)
    length = response.headers.get(_JSON_LENGTH)
    read = read_json(content, None if length is None else int(length), kind.expected, _rows(feed))
    if isinstance(read, Wrong):
        return Answer(status=read.status, answered=True, problem=read.words, **sizes)
    return Answer(status="200", answered=True, facts=read, **sizes)


def _rows(feed: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(feed.values())))


def _without_answer(error: BaseException | None) -> tuple[str, str]:
    cause = getattr(error, "original", None) or error  # what made a client give up trying
    words = str(cause) or type(cause).__name__
    if isinstance(cause, ConnectionRefusedError):
        return "refused", words
    late = isinstance(cause, TimeoutError | gevent.Timeout)
    return ("timeout" if late else "closed"), words


# --- gRPC ------------------------------------------------------------------------------------


class GrpcCaller:
    """Calls of one user over gRPC, on a connection of its own."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        # Channels of one process share connections unless told otherwise; users do not.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channel = grpc.insecure_channel(address, options=options)
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._headers = headers

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def call(
        self,
        kind: Asked,
        feed: Mapping[str, NDArray[Any]],
        *,
        left: float | None,
        timeout: float,
    ) -> Answer:
        """See `HttpCaller.call`; tensors always travel as raw bytes."""
        message = pb.ModelInferRequest(model_name=kind.model, model_version=kind.version)
        for one in kind.inputs:
            data = feed[one.name]
            message.inputs.add(name=one.name, datatype=one.datatype, shape=list(data.shape))
            message.raw_input_contents.append(
                bytes(to_raw(Tensor(one.name, one.datatype, np.ascontiguousarray(data))))
            )
        size = message.ByteSize()
        allowed = max(timeout if left is None else min(left, timeout), 1e-6)
        metadata = [
            (name.lower(), value) for name, value in {**self._headers, **kind.headers}.items()
        ]
        try:
            answer = self._stub.ModelInfer(message, timeout=allowed, metadata=metadata)
        except grpc.RpcError as error:
            return _refused(error, size)
        sizes = {"bytes_sent": size, "bytes_received": answer.ByteSize()}
        read = read_grpc(answer, kind.expected, _rows(feed))
        if isinstance(read, Wrong):
            return Answer(status=read.status, answered=True, problem=read.words, **sizes)
        return Answer(status="OK", answered=True, facts=read, **sizes)


def _refused(error: Any, size: int) -> Answer:
    status, words = error.code().name, error.details() or ""
    # gRPC's own clock says so without asking the server, which would have given its reasons.
    own = status == "DEADLINE_EXCEEDED" and words.lower() == "deadline exceeded"
    reached = not (status == "UNAVAILABLE" and "connect" in words.lower())
    return Answer(status=status, answered=reached and not own, problem=words, bytes_sent=size)
