"""Bodies that differ from the one before in nothing but their numbers."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.protocol import rest
from serving.protocol.rest_plain import Envelope
from serving.protocol.shapes import TensorLimits
from serving.types import InferRequest

LIMITS = TensorLimits()


def body_of(*inputs: tuple[str, str, list[int], list[Any]], id_: str = "") -> bytes:
    """A plain body, keys in the order clients usually send them."""
    tensors = [
        {"name": name, "datatype": datatype, "shape": shape, "data": data}
        for name, datatype, shape, data in inputs
    ]
    return json.dumps({**({"id": id_} if id_ else {}), "inputs": tensors}).encode()


LEARNED = body_of(("X", "FP32", [1, 2], [1.5, 2]), ("k", "INT64", [1], [7]), id_="r")


def learned(body: bytes = LEARNED) -> Envelope:
    """The envelope of a body that has one."""
    envelope = Envelope.of(body, "m", "v", LIMITS)
    assert envelope is not None
    return envelope


def words(request: InferRequest) -> Any:
    """A request as values that can be compared."""
    tensors = [
        (t.name, t.datatype, t.data.shape, t.data.dtype, t.data.tobytes()) for t in request.inputs
    ]
    return request.model, request.version, request.id, request.parameters, tensors


def slowly(body: bytes) -> Any:
    """What the codec makes of a body by itself; None if it refuses it."""
    try:
        request = rest.decode_infer(body, None, model="m", version="v", limits=LIMITS)
    except InvalidRequest:
        return None
    return words(request)


def test_other_numbers_are_read() -> None:
    """The same names, types and shapes with other numbers mean what they mean anywhere."""
    body = body_of(("X", "FP32", [1, 2], [-0.25, 1e3]), ("k", "INT64", [1], [-(2**60)]), id_="r")

    request = learned().decode(body)

    assert request is not None
    assert words(request) == slowly(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(LEARNED.replace(b'"X"', b'"Y"'), id="another name"),
        pytest.param(LEARNED.replace(b"FP32", b"FP64"), id="another type"),
        pytest.param(LEARNED.replace(b"[1, 2]", b"[2, 1]"), id="another shape"),
        pytest.param(LEARNED.replace(b'"r"', b'"s"'), id="another id"),
        pytest.param(LEARNED.replace(b"[1.5, 2]", b"[1.5, 2, 3]"), id="a number too many"),
        pytest.param(LEARNED.replace(b"[1.5, 2]", b"[1.5]"), id="a number too few"),
        pytest.param(LEARNED.replace(b"[1.5, 2]", b"[[1.5, 2]]"), id="nested"),
        pytest.param(LEARNED.replace(b"[1.5, 2]", b"[1.5, true]"), id="a boolean"),
        pytest.param(LEARNED.replace(b"[1.5, 2]", b"[1.5, null]"), id="a null"),
        pytest.param(LEARNED.replace(b"[1.5, 2]", b'[1.5, "]"]'), id="a string"),
        pytest.param(LEARNED.replace(b"[1.5, 2]", b"[1.5, 1e39]"), id="too large a number"),
        pytest.param(LEARNED.replace(b"[7]", b"[7.0]"), id="a float for an integer"),
        pytest.param(LEARNED.replace(b"[7]", b"[7]]"), id="a bracket too many"),
        pytest.param(LEARNED + b" ", id="something behind it"),
        pytest.param(LEARNED[:-1], id="cut short"),
        pytest.param(LEARNED[: LEARNED.index(b"[7]") + 2], id="cut within the numbers"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_else_is_left_to_the_codec(body: bytes) -> None:
    """Right or wrong, what differs in more than its numbers is not read by the envelope."""
    assert learned().decode(body) is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(body_of(("X", "FP32", [1, 1], [[1]])), id="nested"),
        pytest.param(b'{"inputs": [], "id": "a"}', id="no inputs"),
        pytest.param(LEARNED[:-1] + b', "parameters": {"timeout": 5}}', id="parameters"),
        pytest.param(body_of(('"data', "FP32", [1], [1])), id="an escaped quote in a name"),
        pytest.param(LEARNED.replace(b'"data"', b'"d\\u0061ta"'), id="an escaped key"),
    ],
)
def test_only_plain_bodies_have_an_envelope(body: bytes) -> None:
    """Where it is not certain which bytes are the numbers, nothing is remembered."""
    assert Envelope.of(body, "m", "v", LIMITS) is None


@given(
    st.sampled_from(["FP32", "FP64", "INT8", "UINT64", "INT64"]),
    st.lists(
        st.one_of(
            st.integers(-(2**65), 2**65), st.floats(allow_nan=False), st.booleans(), st.none()
        ),
        max_size=4,
    ),
    st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=3)), max_size=2),
)
def test_what_it_reads_is_what_the_codec_reads(
    datatype: str, values: list[Any], cuts: list[tuple[int, bytes]]
) -> None:
    """Whatever numbers come, and whatever bytes are changed, it never reads anything else."""
    envelope = learned(body_of(("X", datatype, [3], [1, 2, 3])))
    body = body_of(("X", datatype, [3], values))
    for place, instead in cuts:
        body = body[:place] + instead + body[place + len(instead) :]

    request = envelope.decode(body)

    assert request is None or words(request) == slowly(body)


def test_arrays_are_read_only() -> None:
    """As from the codec: what a client sent is not changed by whoever gets it next."""
    request = learned().decode(LEARNED)

    assert request is not None
    with pytest.raises(ValueError, match="read-only"):
        request.inputs[0].data[0, 0] = np.float32(1)
