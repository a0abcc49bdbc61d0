"""Answers written by hand, held against the protobuf library."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.protocol import grpc, grpc_wire
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.tensors import to_raw
from serving.types import NUMPY_OF, InferRequest, InferResponse, ParameterValue, Tensor

# Generating slowly is what a loaded machine does, not a fault of the strategies.
EXAMPLES = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=150)
VALUES = st.one_of(st.booleans(), st.integers(-(2**64), 2**64), TEXTS, st.floats())


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """A tensor of any datatype, small or of some hundred bytes."""
    datatype = draw(st.sampled_from(sorted(NUMPY_OF)))
    shape = draw(st.lists(st.integers(0, 9), max_size=3))
    if datatype == "BYTES":
        data = np.full(shape, b"ab", np.object_)
    else:
        data = draw(st.integers(0, 1)) * np.ones(shape, NUMPY_OF[datatype])
        data = data.astype(NUMPY_OF[datatype])
    return Tensor(draw(TEXTS), datatype, data)


def by_the_library(response: InferResponse) -> pb.ModelInferResponse:
    """The same answer, put together with protobuf objects."""
    message = pb.ModelInferResponse(
        model_name=response.model, model_version=response.version, id=response.id
    )
    for key, value in response.parameters.items():
        parameter = message.parameters[key]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int) and -(2**63) <= value < 2**63:
            parameter.int64_param = value
        else:
            parameter.string_param = str(value)
    for tensor in response.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.data.shape)
        message.raw_output_contents.append(bytes(to_raw(tensor)))
    return message


@given(
    TEXTS, TEXTS, TEXTS, st.dictionaries(TEXTS, VALUES, max_size=3), st.lists(tensors(), max_size=3)
)
@EXAMPLES
def test_the_bytes_are_the_message_that_the_library_would_make(
    model: str,
    version: str,
    identifier: str,
    parameters: dict[str, ParameterValue],
    outputs: list[Tensor],
) -> None:
    """Parsed, they compare equal; no unknown field is among them."""
    response = InferResponse(model, version, outputs, identifier, parameters)
    encoded = grpc.encode_infer(InferRequest(model, "", []), response)
    expected = by_the_library(response)

    assert pb.ModelInferResponse.FromString(encoded) == expected
    assert len(encoded) == expected.ByteSize()


@given(TEXTS, st.lists(tensors(), max_size=2))
@EXAMPLES
def test_a_streams_answer_holds_the_same_message(identifier: str, outputs: list[Tensor]) -> None:
    """The same answer and the parameter that marks it final."""
    response = InferResponse("m", "v1", outputs, identifier, {"model_role": "production"})
    encoded = grpc.encode_stream(InferRequest("m", "", []), response)
    expected = pb.ModelStreamInferResponse(infer_response=by_the_library(response))
    expected.infer_response.parameters["triton_final_response"].bool_param = True

    assert pb.ModelStreamInferResponse.FromString(encoded) == expected


@pytest.mark.parametrize(
    "data",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4).T,
        np.arange(12, dtype=np.float32)[::2],
        np.arange(3, dtype=">f4"),
        np.float32(2.5).reshape(()),
    ],
    ids=["transposed", "strided", "big endian", "scalar"],
)
def test_arrays_go_out_row_major_and_little_endian(data: Any) -> None:
    """However they lie in memory."""
    response = InferResponse("m", "v1", [Tensor("y", "FP32", data)])
    message = pb.ModelInferResponse.FromString(
        grpc.encode_infer(InferRequest("m", "", []), response)
    )

    found = np.frombuffer(message.raw_output_contents[0], "<f4")
    assert found.tolist() == data.ravel().tolist()


@given(st.integers(-(2**63), 2**63 - 1))
@EXAMPLES
def test_numbers_are_written_as_the_library_writes_them(number: int) -> None:
    """One byte or ten, negative ones as 64 bits."""
    expected = pb.InferParameter(int64_param=number).SerializeToString()

    assert grpc_wire.varint_field(2, number) == expected


@pytest.mark.parametrize("letters", range(96, 136, 3))
@pytest.mark.parametrize(
    "value", [0, 127, 128, 2**14, 2**21, 2**28 - 1, 2**28, 2**35, 2**62, -1, "x", "x" * 30]
)
def test_a_length_that_takes_a_second_byte_is_written_so(letters: int, value: int | str) -> None:
    """The short ways of writing a parameter end where one byte no longer says how long it is."""
    response = InferResponse("m", "v1", [], "", {"k" * letters: value})

    encoded = grpc.encode_infer(InferRequest("m", "", []), response)

    assert encoded == by_the_library(response).SerializeToString()
