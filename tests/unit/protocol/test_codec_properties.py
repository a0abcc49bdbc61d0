"""Round trips: a tensor survives every wire form it has."""

from typing import Any

import numpy as np
import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from serving.protocol import grpc, rest, tensors
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.tensors import TensorLimits
from serving.types import NUMPY_OF, InferRequest, InferResponse, Tensor

# Generating slowly is what a loaded machine does, not a fault of the strategies.
EXAMPLES = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMITS = TensorLimits(max_elements=10_000)
JSON_DATATYPES = [d for d in NUMPY_OF if d not in ("FP16", "BF16")]
TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@st.composite
def arrays(draw: st.DrawFn, datatype: str, *, text: bool = False) -> NDArray[Any]:
    """An array of the datatype; `text` keeps BYTES to UTF-8 and numbers finite."""
    shape = draw(SHAPES)
    if datatype == "BYTES":
        element = st.text(max_size=8).map(str.encode) if text else st.binary(max_size=8)
        size = int(np.prod(shape))
        data = np.empty(size, np.object_)
        data[:] = draw(st.lists(element, min_size=size, max_size=size))
        return data.reshape(shape)
    elements = None
    if text and datatype.startswith("FP"):
        width = NUMPY_OF[datatype].itemsize * 8
        elements = st.floats(allow_nan=False, allow_infinity=False, width=width)  # type: ignore[arg-type]
    return draw(hnp.arrays(NUMPY_OF[datatype], shape, elements=elements))


@st.composite
def named(draw: st.DrawFn, datatypes: list[str], *, text: bool = False) -> Tensor:
    """A tensor of one of the datatypes."""
    datatype = draw(st.sampled_from(datatypes))
    name = draw(st.text(min_size=1, max_size=10))
    return Tensor(name, datatype, draw(arrays(datatype, text=text)))


def same(left: Tensor, right: Tensor) -> bool:
    """Equal in name, datatype, shape and every bit."""
    return (left.name, left.datatype, left.shape) == (right.name, right.datatype, right.shape) and (
        left.data.tolist() == right.data.tolist()
        if left.datatype == "BYTES"
        else left.data.tobytes() == right.data.tobytes()
    )


def flat(data: NDArray[Any]) -> list[Any]:
    """JSON values, row-major."""
    return [v.decode() if isinstance(v, bytes) else v for v in data.reshape(-1).tolist()]


def decode(body: bytes, header_length: int | None = None) -> InferRequest:
    """Decode for any model."""
    return rest.decode_infer(body, header_length, model="m", version="", limits=LIMITS)


@EXAMPLES
@given(named(list(NUMPY_OF)))
def test_raw_bytes_round_trip(tensor: Tensor) -> None:
    """Every datatype, every shape, every bit pattern."""
    raw = bytes(tensors.to_raw(tensor))

    back = tensors.from_raw(tensor.name, tensor.datatype, list(tensor.shape), raw, LIMITS)

    assert same(tensor, back)


@EXAMPLES
@given(named(JSON_DATATYPES, text=True), st.booleans())
def test_json_requests_round_trip(tensor: Tensor, nest: bool) -> None:
    """Flat or nested, what was written is what is read."""
    values: Any = flat(tensor.data)
    if nest and tensor.data.ndim:
        text = tensor.data
        if tensor.datatype == "BYTES":
            text = np.array(values, np.object_).reshape(tensor.shape)
        values = text.tolist()
    entry = {
        "name": tensor.name,
        "shape": tensor.shape,
        "datatype": tensor.datatype,
        "data": values,
    }

    [back] = decode(orjson.dumps({"inputs": [entry]})).inputs

    assert same(tensor, back)


@EXAMPLES
@given(st.lists(named(list(NUMPY_OF)), min_size=1, max_size=4, unique_by=lambda t: t.name))
def test_binary_requests_round_trip(sent: list[Tensor]) -> None:
    """Several tensors behind one JSON header, wherever they come to lie."""
    parts = [bytes(tensors.to_raw(tensor)) for tensor in sent]
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": tensor.name,
                    "shape": tensor.shape,
                    "datatype": tensor.datatype,
                    "parameters": {"binary_data_size": len(part)},
                }
                for tensor, part in zip(sent, parts, strict=True)
            ]
        }
    )

    request = decode(head + b"".join(parts), len(head))

    assert all(map(same, sent, request.inputs))
    assert all(tensor.data.flags.aligned for tensor in request.inputs)


@EXAMPLES
@given(st.lists(named(list(NUMPY_OF)), min_size=1, max_size=4, unique_by=lambda t: t.name))
def test_raw_grpc_requests_round_trip(sent: list[Tensor]) -> None:
    """Every datatype through a serialised message."""
    message = pb.ModelInferRequest(
        inputs=[
            {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
            for tensor in sent
        ],
        raw_input_contents=[bytes(tensors.to_raw(tensor)) for tensor in sent],
    )

    request = grpc.decode_infer(
        pb.ModelInferRequest.FromString(message.SerializeToString()), LIMITS
    )

    assert all(map(same, sent, request.inputs))


@EXAMPLES
@given(named(list(TYPED)))
def test_typed_grpc_requests_round_trip(tensor: Tensor) -> None:
    """Every datatype that has a typed field, infinities included; NaN keeps being one."""
    message = pb.ModelInferRequest(
        inputs=[
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.shape,
                "contents": {TYPED[tensor.datatype]: tensor.data.reshape(-1).tolist()},
            }
        ]
    )

    [back] = grpc.decode_infer(
        pb.ModelInferRequest.FromString(message.SerializeToString()), LIMITS
    ).inputs

    assert back.shape == tensor.shape
    if tensor.datatype.startswith("FP"):
        assert np.array_equal(back.data, tensor.data, equal_nan=True)
    else:
        assert same(tensor, back)


@EXAMPLES
@given(st.lists(named(list(NUMPY_OF)), max_size=4, unique_by=lambda t: t.name))
def test_binary_answers_hold_every_output(outputs: list[Tensor]) -> None:
    """Reading an answer the way a client does gives the same tensors."""
    body, length = rest.encode_infer(
        InferRequest("m", "", [], binary_output=True), InferResponse("m", "v1", outputs)
    )

    position = len(body) if length is None else length
    described = orjson.loads(body[:position])["outputs"]
    for tensor, entry in zip(outputs, described, strict=True):
        size = entry["parameters"]["binary_data_size"]
        content = body[position : position + size]
        position += size
        assert same(
            tensor,
            tensors.from_raw(entry["name"], entry["datatype"], entry["shape"], content, LIMITS),
        )
    assert position == len(body)


@EXAMPLES
@given(st.lists(named(JSON_DATATYPES, text=True), max_size=4, unique_by=lambda t: t.name))
def test_a_json_answer_can_be_sent_back_as_a_request(outputs: list[Tensor]) -> None:
    """Outputs and inputs have one form; no digit of a float is lost."""
    body, length = rest.encode_infer(InferRequest("m", "", []), InferResponse("m", "v1", outputs))

    assert length is None
    described = orjson.loads(body)["outputs"]
    for tensor, entry in zip(outputs, described, strict=True):
        [back] = decode(orjson.dumps({"inputs": [entry]})).inputs
        assert same(tensor, back)
