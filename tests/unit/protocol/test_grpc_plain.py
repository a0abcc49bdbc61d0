"""Requests that begin like an earlier one: the short way says what the long way says."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.protocol import grpc
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.tensors import TensorLimits
from serving.types import NUMPY_OF, InferRequest

# Generating slowly is what a loaded machine does, not a fault of the strategies.
EXAMPLES = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMITS = TensorLimits(max_elements=1000, max_inputs=4)
DATATYPES = sorted(set(NUMPY_OF) - {"BOOL", "BYTES"})
NAMES = st.text(max_size=8)


def message(**fields: Any) -> pb.ModelInferRequest:
    """A plain request: two FP32 numbers."""
    whole = {
        "model_name": "m",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2]}],
        "raw_input_contents": [np.array([1, 2], np.float32).tobytes()],
    }
    return pb.ModelInferRequest(**whole | fields)


def learnt(plain: grpc.PlainRequests, encoded: bytes) -> InferRequest:
    """Decode the long way, and have the short way learn from it."""
    parsed = pb.ModelInferRequest.FromString(encoded)
    request = grpc.decode_infer(parsed, LIMITS)
    plain.learn(encoded, parsed, request)
    return request


def taught(encoded: bytes) -> grpc.PlainRequests:
    """One that has seen a single request."""
    plain = grpc.PlainRequests()
    learnt(plain, encoded)
    return plain


def facts(request: InferRequest) -> tuple[object, ...]:
    """Everything a request says, comparable."""
    tensors = [
        (t.name, t.datatype, t.data.dtype, t.shape, t.data.tobytes()) for t in request.inputs
    ]
    return (
        request.model,
        request.version,
        request.id,
        request.parameters,
        request.outputs,
        request.binary_output,
        tensors,
    )


def long_way(encoded: bytes) -> InferRequest | None:
    """What parsing says; None for what it refuses."""
    try:
        return grpc.decode_infer(pb.ModelInferRequest.FromString(encoded), LIMITS)
    except (DecodeError, InvalidRequest):
        return None


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    """A request with raw contents, one to three inputs, perhaps a version, an id, outputs."""
    one = pb.ModelInferRequest(
        model_name=draw(NAMES), model_version=draw(NAMES), id=draw(st.text(max_size=140))
    )
    for name in draw(st.lists(NAMES.filter(bool), min_size=1, max_size=3, unique=True)):
        datatype = draw(st.sampled_from(DATATYPES))
        shape = draw(st.lists(st.integers(0, 9), max_size=3))
        one.inputs.add(name=name, datatype=datatype, shape=shape)
        size = int(np.prod(shape)) * NUMPY_OF[datatype].itemsize
        one.raw_input_contents.append(draw(st.binary(min_size=size, max_size=size)))
    for name in draw(st.lists(NAMES.filter(bool), max_size=2, unique=True)):
        one.outputs.add(name=name)
    return one


@given(requests(), st.text(max_size=140), st.randoms(use_true_random=False))
@EXAMPLES
def test_both_ways_read_the_same(first: pb.ModelInferRequest, identifier: str, random: Any) -> None:
    """A later request with another id and other numbers is read as if it were parsed."""
    plain = taught(first.SerializeToString())
    first.id = identifier
    for index, content in enumerate(first.raw_input_contents):
        first.raw_input_contents[index] = random.randbytes(len(content))
    encoded = first.SerializeToString()
    expected = long_way(encoded)
    found = plain.decode(encoded)

    assert expected is not None
    if found is not None:
        assert facts(found) == facts(expected)
    if all(first.raw_input_contents) and len(identifier.encode()) < 128:
        assert found is not None


@given(requests(), st.data())
@EXAMPLES
def test_a_damaged_request_is_never_read_otherwise_than_by_parsing(
    first: pb.ModelInferRequest, data: st.DataObject
) -> None:
    """Bytes changed, put in or cut out: either the long way is asked, or both agree."""
    encoded = first.SerializeToString()
    plain = taught(encoded)
    start = data.draw(st.integers(0, len(encoded)))
    end = data.draw(st.integers(start, min(len(encoded), start + 4)))
    damaged = encoded[:start] + data.draw(st.binary(max_size=4)) + encoded[end:]
    found = plain.decode(damaged)

    if found is not None:
        expected = long_way(damaged)
        assert expected is not None
        assert facts(found) == facts(expected)


def test_an_id_may_come_and_go() -> None:
    """What was learnt with an id serves requests without, and the other way round."""
    bare, named = (message(id=i).SerializeToString() for i in ("", "request-7"))

    for first, second, identifier in ((bare, named, "request-7"), (named, bare, "")):
        found = taught(first).decode(second)
        assert found is not None
        assert found.id == identifier


def test_an_id_that_is_no_text_is_left_to_the_parser() -> None:
    """Protobuf strings are UTF-8; the parser refuses this one."""
    plain = taught(message(id="ab").SerializeToString())
    damaged = message(id="ab").SerializeToString().replace(b"\x1a\x02ab", b"\x1a\x02\xff\xff")

    assert plain.decode(damaged) is None
    assert long_way(damaged) is None


def test_requested_outputs_are_each_requests_own() -> None:
    """Whoever changes a request's list of outputs does not change the next one's."""
    encoded = message(outputs=[{"name": "p"}]).SerializeToString()
    plain = taught(encoded)
    first, second = plain.decode(encoded), plain.decode(encoded)

    assert first is not None
    assert second is not None
    first.outputs.clear()
    assert [output.name for output in second.outputs] == ["p"]


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"timeout": pb.InferParameter(int64_param=5)}},
        {
            "inputs": [{"name": "x", "datatype": "BOOL", "shape": [2]}],
            "raw_input_contents": [b"\0\1"],
        },
        {
            "inputs": [{"name": "x", "datatype": "BYTES", "shape": [1]}],
            "raw_input_contents": [b"\1\0\0\0a"],
        },
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [2],
                    "contents": {"fp32_contents": [1, 2]},
                }
            ],
            "raw_input_contents": [],
        },
    ],
    ids=["parameters", "BOOL", "BYTES", "typed contents"],
)
def test_what_is_not_plain_is_not_learnt(fields: dict[str, Any]) -> None:
    """Parameters steer, and BOOL, BYTES and typed contents have to be looked at."""
    encoded = message(**fields).SerializeToString()

    assert taught(encoded).decode(encoded) is None


def test_fields_in_another_order_are_not_learnt() -> None:
    """They mean the same, but the tensors are not where the short way looks."""
    whole = message()
    contents = pb.ModelInferRequest(raw_input_contents=whole.raw_input_contents)
    del whole.raw_input_contents[:]
    encoded = contents.SerializeToString() + whole.SerializeToString()

    assert long_way(encoded) is not None
    assert taught(encoded).decode(encoded) is None


def test_a_request_of_another_shape_is_a_stranger() -> None:
    """Names, datatypes, shapes and sizes are all part of how a request begins."""
    plain = taught(message().SerializeToString())
    wide = message(
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 3]}], raw_input_contents=[bytes(12)]
    )

    assert plain.decode(message(model_name="n").SerializeToString()) is None
    assert plain.decode(wide.SerializeToString()) is None
    assert plain.decode(message(raw_input_contents=[bytes(12)]).SerializeToString()) is None


def test_few_are_kept_and_newcomers_are_let_in_in_the_end() -> None:
    """The first eight stay known while strangers pass once; one that keeps coming gets in."""
    plain = grpc.PlainRequests()
    encoded = [message(model_name=f"m{n}").SerializeToString() for n in range(100)]
    for one in encoded[:8]:
        learnt(plain, one)
    for one in encoded[8:20]:
        learnt(plain, one)
    known = [plain.decode(one) is not None for one in encoded[:20]]
    asked = 0
    while plain.decode(encoded[99]) is None:
        learnt(plain, encoded[99])
        asked += 1

    assert known == [True] * 8 + [False] * 12
    assert 0 < asked <= 16


def test_tensors_can_be_used_wherever_they_lay() -> None:
    """Elements are aligned for kernels that insist, and nobody can write to them."""
    for model in ("m", "mm", "mmm", "mmmm"):
        encoded = message(model_name=model).SerializeToString()
        found = taught(encoded).decode(encoded)

        assert found is not None
        assert found.inputs[0].data.flags.aligned
        assert not found.inputs[0].data.flags.writeable
