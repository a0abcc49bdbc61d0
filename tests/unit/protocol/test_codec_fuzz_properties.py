"""Whatever arrives, only an InvalidRequest comes out, and memory stays in proportion."""

import contextlib
import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.protocol import grpc, rest
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.tensors import TensorLimits
from serving.types import NUMPY_OF, InferRequest, Tensor, TensorMetadata

# Generating slowly is what a loaded machine does, not a fault of the strategies.
EXAMPLES = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMITS = TensorLimits(max_elements=100_000, max_inputs=8)

JSON_BODY = orjson.dumps(
    {
        "id": "r:1",
        "parameters": {"timeout": 5000, "binary_data_output": True, "s": "\\\"'"},
        "inputs": [
            {"name": "X", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2.5], [-3, 4e5]]},
            {"name": "i", "shape": [3], "datatype": "INT64", "data": [1, -2, 2**62]},
            {"name": "b", "shape": [1, 2], "datatype": "BOOL", "data": [True, False]},
            {"name": "s", "shape": [2], "datatype": "BYTES", "data": ["a:b", "{[ä"]},
        ],
        "outputs": [{"name": "p", "parameters": {"binary_data": False, "classification": 2}}],
    }
)
HEAD = orjson.dumps(
    {
        "inputs": [
            {
                "name": "X",
                "shape": [2, 2],
                "datatype": "FP32",
                "parameters": {"binary_data_size": 16},
            },
            {
                "name": "s",
                "shape": [2],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": 13},
            },
        ]
    }
)
BINARY_BODY = (
    HEAD + struct.pack("<4f", 1, 2, 3, 4) + struct.pack("<I3sI2s", 3, b"abc", 2, b"\xff\x00")
)
RAW_MESSAGE = pb.ModelInferRequest(
    model_name="m",
    id="r",
    parameters={"timeout": pb.InferParameter(int64_param=5)},
    inputs=[
        {"name": "X", "datatype": "FP32", "shape": [2, 2]},
        {"name": "s", "datatype": "BYTES", "shape": [2]},
    ],
    outputs=[{"name": "p"}],
    raw_input_contents=[bytes(16), struct.pack("<I3sI2s", 3, b"abc", 2, b"\xff\x00")],
).SerializeToString()
TYPED_MESSAGE = pb.ModelInferRequest(
    model_name="m",
    inputs=[
        {
            "name": "X",
            "datatype": "FP32",
            "shape": [3],
            "contents": {"fp32_contents": [1.0, 2.0, 3.0]},
        },
        {"name": "i", "datatype": "INT8", "shape": [2], "contents": {"int_contents": [1, -128]}},
        {"name": "s", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a"]}},
    ],
).SerializeToString()

# What makes parsers trip: put in anywhere.
SPLICES = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"[[[[[[[[[[[[[[[[[[[[",
    b'"inputs":[],',
    b'"data":[1],',
    b'"shape":[9223372036854775807],',
    b'"shape":[0,4611686018427387904],',
    b'"parameters":{"binary_data_size":-1},',
    b"\\ud800",
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b'"',
    b"\\",
    b":",
)


@st.composite
def mutated(draw: st.DrawFn, body: bytes) -> bytes:
    """A valid body, cut, flipped, spliced or doubled a few times."""
    text = bytearray(body)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        match draw(st.sampled_from(["cut", "flip", "splice", "drop", "double", "insert"])):
            case "cut":
                del text[at:]
            case "flip" if text:
                text[at] ^= 1 << draw(st.integers(0, 7))
            case "splice":
                text[at:at] = draw(st.sampled_from(SPLICES))
            case "drop":
                del text[at : at + draw(st.integers(1, 16))]
            case "double":
                end = at + draw(st.integers(1, 64))
                text[at:at] = text[at:end]
            case _:
                text[at:at] = draw(st.binary(max_size=8))
    return bytes(text)


def assert_sound(request: InferRequest) -> None:
    """What was accepted keeps the promises the pipeline builds on."""
    assert 1 <= len(request.inputs) <= LIMITS.max_inputs
    assert len({tensor.name for tensor in request.inputs}) == len(request.inputs)
    for tensor in request.inputs:
        assert_tensor(tensor)
    for value in request.parameters.values():
        assert type(value) in (bool, int, float, str)


def assert_tensor(tensor: Tensor) -> None:
    """Datatype, dtype and elements agree, within the limits."""
    assert tensor.data.dtype == NUMPY_OF[tensor.datatype]
    assert tensor.data.size <= LIMITS.max_elements
    if tensor.datatype == "BYTES":
        assert all(type(element) is bytes for element in tensor.data.flat)
    else:
        assert tensor.data.flags.aligned


def decode_rest(body: bytes, header_length: int | None) -> None:
    """Decode; an InvalidRequest is an answer, anything else is not."""
    with contextlib.suppress(InvalidRequest):
        assert_sound(
            rest.decode_infer(
                body,
                header_length,
                model="m",
                version="",
                limits=LIMITS,
                raw_input=TensorMetadata("only", "INT16", (-1, 2)),
            )
        )


def decode_grpc(serialised: bytes) -> None:
    """Decode what protobuf itself takes; an InvalidRequest is an answer."""
    try:
        message = pb.ModelInferRequest.FromString(serialised)
    except DecodeError:
        return
    with contextlib.suppress(InvalidRequest):
        assert_sound(grpc.decode_infer(message, LIMITS))


def test_the_bodies_that_are_mutated_are_valid() -> None:
    """Otherwise the mutations would only ever test the first check."""
    for body, length in ((JSON_BODY, None), (BINARY_BODY, len(HEAD))):
        assert_sound(rest.decode_infer(body, length, model="m", version="", limits=LIMITS))
    for serialised in (RAW_MESSAGE, TYPED_MESSAGE):
        assert_sound(grpc.decode_infer(pb.ModelInferRequest.FromString(serialised), LIMITS))


@EXAMPLES
@given(st.binary(max_size=300), st.none() | st.integers(-5, 310))
@example(b"", 0)
@example(b"", None)
def test_any_bytes_are_a_request_or_an_invalid_one(body: bytes, header_length: int | None) -> None:
    """Random bytes with any header length."""
    decode_rest(body, header_length)


@EXAMPLES
@given(mutated(JSON_BODY))
def test_a_damaged_json_request_is_a_request_or_an_invalid_one(body: bytes) -> None:
    """Cut, flipped and spliced JSON."""
    decode_rest(body, None)


@EXAMPLES
@given(mutated(BINARY_BODY), st.integers(-3, 3))
def test_a_damaged_binary_request_is_a_request_or_an_invalid_one(body: bytes, off: int) -> None:
    """Cut, flipped and spliced bodies, also with a header length that is a little off."""
    decode_rest(body, len(HEAD) + off)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters", "x"]), inner
        )
    ),
    max_leaves=12,
)


@EXAMPLES
@given(
    st.fixed_dictionaries(
        {
            "inputs": JSON_VALUES
            | st.lists(
                st.fixed_dictionaries(
                    {
                        "name": st.sampled_from(["a", "b", ""]) | JSON_VALUES,
                        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON_VALUES,
                        "datatype": st.sampled_from([*NUMPY_OF, "FLOAT"]) | JSON_VALUES,
                        "data": JSON_VALUES,
                    },
                    optional={"parameters": JSON_VALUES, "extra": JSON_VALUES},
                ),
                max_size=3,
            )
        },
        optional={
            "id": JSON_VALUES,
            "parameters": JSON_VALUES,
            "outputs": JSON_VALUES,
            "extra": JSON_VALUES,
        },
    )
)
def test_well_formed_nonsense_is_a_request_or_an_invalid_one(document: dict[str, object]) -> None:
    """The right keys with values of any type."""
    decode_rest(orjson.dumps(document), None)


@EXAMPLES
@given(mutated(RAW_MESSAGE) | mutated(TYPED_MESSAGE) | st.binary(max_size=200))
def test_a_damaged_message_is_a_request_or_an_invalid_one(serialised: bytes) -> None:
    """What protobuf still parses is checked like any other."""
    decode_grpc(serialised)


@EXAMPLES
@given(
    st.sampled_from(["gzip", "deflate", "x-gzip", "identity", "br", ""]),
    st.binary(max_size=200)
    | mutated(gzip.compress(JSON_BODY, mtime=0))
    | mutated(zlib.compress(JSON_BODY)),
)
def test_a_damaged_compressed_body_is_a_body_or_an_invalid_one(encoding: str, body: bytes) -> None:
    """Truncated, damaged or foreign data; what comes out is within the cap."""
    with contextlib.suppress(InvalidRequest):
        assert len(rest.inflate(body, encoding, 4096, 100)) <= 4096


@EXAMPLES
@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["gzip", "deflate", "*", ";q=", "0.5", ",", "0"])).map("".join)
)
def test_any_accept_encoding_is_a_choice(accept: str) -> None:
    """Nothing escapes from a header a client can write as it likes."""
    assert rest.choose_encoding(accept) in ("gzip", "deflate", None)


def peak_of(body: bytes, header_length: int | None) -> int:
    """Bytes allocated at most while a body is decoded."""
    tracemalloc.start()
    try:
        decode_rest(body, header_length)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


HUGE = 2**60


@pytest.mark.parametrize(
    ("shape", "datatype"),
    [
        ([HUGE], "FP32"),
        ([HUGE, HUGE], "INT8"),
        ([0, HUGE], "FP64"),
        ([100_000], "BYTES"),
        ([99_999], "FP64"),
    ],
)
def test_a_huge_shape_allocates_nothing(shape: list[int], datatype: str) -> None:
    """A few bytes of declaration never ask for the memory they describe."""
    inline = orjson.dumps(
        {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": [1]}]}
    )
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": shape,
                    "datatype": datatype,
                    "parameters": {"binary_data_size": 8},
                }
            ]
        }
    )

    assert peak_of(inline, None) < 100_000
    assert peak_of(head + bytes(8), len(head)) < 100_000


def test_a_binary_body_is_not_copied() -> None:
    """Decoding 4 MiB of aligned floats takes a few KiB."""
    limits = TensorLimits()
    values = np.zeros(1 << 20, np.float32)
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": [1 << 20],
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": values.nbytes},
                }
            ]
        }
    )
    # A bytes object's content is aligned; so is what follows a header of a multiple of four.
    head = head.ljust((len(head) + 3) // 4 * 4)
    body = head + values.tobytes()

    tracemalloc.start()
    try:
        request = rest.decode_infer(body, len(head), model="m", version="", limits=limits)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert request.inputs[0].data.shape == (1 << 20,)
    assert peak < 100_000
