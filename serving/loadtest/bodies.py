"""A request of the plan to the bytes that ask it: JSON, binary tensors or protobuf.

Formats: Open Inference Protocol V2 and its binary tensor data extension. Whatever can be is made
once per kind and number of rows; a request then costs the joining of a few strings.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
import orjson

from serving.errors import InvalidRequest
from serving.loadtest.answers import Expected
from serving.loadtest.plan import KeyColumn
from serving.protocol import rest, tensors
from serving.protocol._generated import inference_pb2 as pb
from serving.types import InferRequest

__all__ = ["BinaryBodies", "Bodies", "GrpcBodies", "JsonBodies", "KindSpec"]

_LIMITS: Final = tensors.TensorLimits(max_elements=1 << 24, max_inputs=1024, max_json_depth=64)
_NUMPY: Final = {"INT32": "<i4", "INT64": "<i8"}


class KindSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request as the generator needs it."""

    name: str
    model: str
    version: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""
    """A whole request in JSON; empty: `columns` of the plan fill it."""

    expected: Expected


class Bodies(Protocol):
    """The bodies of one kind."""

    def make(self, offset: int, rows: int) -> tuple[bytes, int | None]:
        """The body, and how many bytes of it are JSON if the rest is binary tensors."""
        ...


class JsonBodies:
    """HTTP with JSON."""

    def __init__(self, kind: KindSpec, columns: Sequence[KeyColumn]) -> None:
        self._whole = kind.body
        self._columns = [(column, _json_of(column)) for column in columns]

    def make(self, offset: int, rows: int) -> tuple[bytes, int | None]:
        """See `Bodies`."""
        if self._whole:
            return self._whole, None
        inputs = [
            b'{"name":%b,"datatype":"%b","shape":[%d],"data":[%b]}'
            % (
                orjson.dumps(column.name),
                column.datatype.encode(),
                rows,
                b",".join([of(one) for one in column.values[offset : offset + rows].tolist()]),
            )
            for column, of in self._columns
        ]
        return b'{"inputs":[%b]}' % b",".join(inputs), None


class BinaryBodies:
    """HTTP with binary tensors, asking for binary answers."""

    def __init__(self, kind: KindSpec, columns: Sequence[KeyColumn]) -> None:
        self._columns = columns
        self._whole: tuple[bytes, int] | None = None
        if kind.body:
            request = _decoded(kind)
            entries = [(one.name, one.datatype, list(one.shape)) for one in request.inputs]
            raws = [bytes(tensors.to_raw(one)) for one in request.inputs]
            document = _head(entries, raws, request)
            self._whole = (b"".join([document, *raws]), len(document))

    def make(self, offset: int, rows: int) -> tuple[bytes, int | None]:
        """See `Bodies`."""
        if self._whole is not None:
            return self._whole
        raws = [_raw(column, offset, rows) for column in self._columns]
        document = _head([(one.name, one.datatype, [rows]) for one in self._columns], raws, None)
        return b"".join([document, *raws]), len(document)


class GrpcBodies:
    """A serialised `ModelInferRequest` with raw contents."""

    def __init__(self, kind: KindSpec, columns: Sequence[KeyColumn]) -> None:
        self._kind = kind
        self._columns = columns
        self._heads: dict[int, bytes] = {}
        self._whole = b""
        if kind.body:
            request = _decoded(kind)
            message = pb.ModelInferRequest(model_name=kind.model, model_version=kind.version)
            for one in request.inputs:
                message.inputs.add(name=one.name, datatype=one.datatype, shape=list(one.shape))
                message.raw_input_contents.append(bytes(tensors.to_raw(one)))
            for output in request.outputs:
                message.outputs.add(name=output.name)
            self._whole = message.SerializeToString()

    def make(self, offset: int, rows: int) -> tuple[bytes, int | None]:
        """See `Bodies`."""
        if self._whole:
            return self._whole, None
        raws = [_raw(column, offset, rows) for column in self._columns]
        # Messages written one after the other are one message with the fields of both
        # (protobuf's encoding guide, "Last One Wins" and repeated fields).
        tail = pb.ModelInferRequest(raw_input_contents=raws).SerializeToString()
        return self._head(rows) + tail, None

    def _head(self, rows: int) -> bytes:
        if rows not in self._heads:
            kind = self._kind
            message = pb.ModelInferRequest(model_name=kind.model, model_version=kind.version)
            for column in self._columns:
                message.inputs.add(name=column.name, datatype=column.datatype, shape=[rows])
            self._heads[rows] = message.SerializeToString()
        return self._heads[rows]


def _json_of(column: KeyColumn) -> Any:
    if column.datatype != "BYTES":
        return lambda value: b"%d" % value
    table = [orjson.dumps(key.decode("utf-8", "replace")) for key in column.table]
    return table.__getitem__


def _raw(column: KeyColumn, offset: int, rows: int) -> bytes:
    values = column.values[offset : offset + rows]
    if column.datatype != "BYTES":
        return values.astype(_NUMPY[column.datatype]).tobytes()
    keys = [column.table[place] for place in values.tolist()]
    return b"".join(len(key).to_bytes(4, "little") + key for key in keys)


def _head(
    entries: Sequence[tuple[str, str, list[int]]],
    raws: Sequence[bytes],
    request: InferRequest | None,
) -> bytes:
    document: dict[str, Any] = {
        "inputs": [
            {
                "name": name,
                "datatype": datatype,
                "shape": shape,
                "parameters": {"binary_data_size": len(raw)},
            }
            for (name, datatype, shape), raw in zip(entries, raws, strict=True)
        ],
        "parameters": {**(request.parameters if request else {}), "binary_data_output": True},
    }
    if request is not None and request.outputs:
        document["outputs"] = [{"name": output.name} for output in request.outputs]
    return orjson.dumps(document)


def _decoded(kind: KindSpec) -> InferRequest:
    """Read a body in JSON. Raises InvalidRequest, naming the kind."""
    try:
        return rest.decode_infer(
            kind.body, None, model=kind.model, version=kind.version, limits=_LIMITS
        )
    except InvalidRequest as error:
        raise InvalidRequest(f"the body of `{kind.name}`: {error.message}") from error
