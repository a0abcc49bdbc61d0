"""ModelInfer messages."""

import struct
from typing import Any

import numpy as np
import pytest

from serving.errors import InvalidRequest
from serving.protocol import grpc
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol.tensors import TensorLimits
from serving.types import (
    NUMPY_OF,
    InferRequest,
    InferResponse,
    ParameterValue,
    RequestedOutput,
    Tensor,
)

LIMITS = TensorLimits(max_elements=1000, max_inputs=4)


def typed(name: str = "x", datatype: str = "FP32", shape: Any = (2,), **contents: Any) -> Any:
    """An input with typed contents, two FP32 numbers unless told otherwise."""
    contents = contents or {"fp32_contents": [1.0, 2.0]}
    return {"name": name, "datatype": datatype, "shape": shape, "contents": contents}


def raw(name: str = "x", datatype: str = "FP32", shape: Any = (2,)) -> Any:
    """An input whose content is in raw_input_contents."""
    return {"name": name, "datatype": datatype, "shape": shape}


def decode(**fields: Any) -> InferRequest:
    """Decode a message that has been through the wire once."""
    message = pb.ModelInferRequest(**{"model_name": "m", "inputs": [typed()]} | fields)
    return grpc.decode_infer(pb.ModelInferRequest.FromString(message.SerializeToString()), LIMITS)


def encode(request: InferRequest, response: InferResponse) -> pb.ModelInferResponse:
    """Encode an answer and read it with the protobuf library."""
    return pb.ModelInferResponse.FromString(grpc.encode_infer(request, response))


def test_a_whole_request_is_understood() -> None:
    """Names, id, parameters of every kind, inputs and requested outputs."""
    request = decode(
        model_version="v1",
        id="r1",
        parameters={
            "b": pb.InferParameter(bool_param=True),
            "timeout": pb.InferParameter(int64_param=5),
            "s": pb.InferParameter(string_param="x"),
            "d": pb.InferParameter(double_param=0.5),
            "priority": pb.InferParameter(uint64_param=1),
        },
        outputs=[
            {"name": "p", "parameters": {"classification": pb.InferParameter(int64_param=3)}},
            {"name": "q"},
        ],
    )

    assert (request.model, request.version, request.id) == ("m", "v1", "r1")
    assert request.parameters == {"b": True, "timeout": 5, "s": "x", "d": 0.5, "priority": 1}
    assert [t.data.tolist() for t in request.inputs] == [[1.0, 2.0]]
    assert request.outputs == [RequestedOutput("p", None, 3), RequestedOutput("q")]


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-32_768, 32_767]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 65_535]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [1.5, float("inf")]),
        ("FP64", "fp64_contents", [0.1, -1e300]),
        ("BYTES", "bytes_contents", [b"\xff\x00", b""]),
    ],
)
def test_typed_contents_of_every_datatype(datatype: str, field: str, values: list[Any]) -> None:
    """Each datatype in its field; both ends of each range arrive."""
    request = decode(inputs=[typed("x", datatype, **{field: values})])

    assert request.inputs[0].data.tolist() == values
    assert request.inputs[0].data.dtype == NUMPY_OF[datatype]


@pytest.mark.parametrize("datatype", [d for d in NUMPY_OF if d not in ("BYTES", "BOOL")])
def test_raw_contents_of_every_datatype(datatype: str) -> None:
    """The bytes become the array, also for FP16 and BF16."""
    values = np.arange(2).astype(NUMPY_OF[datatype])

    request = decode(inputs=[raw("x", datatype)], raw_input_contents=[values.tobytes()])

    assert request.inputs[0].data.tolist() == values.tolist()


def test_raw_byte_strings_carry_their_lengths() -> None:
    """The same form as over HTTP."""
    content = struct.pack("<I2sI", 2, b"\xffa", 0)

    request = decode(inputs=[raw("x", "BYTES")], raw_input_contents=[content])

    assert request.inputs[0].data.tolist() == [b"\xffa", b""]


def test_an_input_without_elements_needs_no_contents() -> None:
    """Empty, typed or raw."""
    assert decode(inputs=[raw(shape=(0, 3))]).inputs[0].data.shape == (0, 3)
    message = decode(inputs=[raw(shape=(0,)), raw("y")], raw_input_contents=[b"", bytes(8)])
    assert message.inputs[0].data.shape == (0,)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"inputs": []}, "inputs must not be empty"),
        ({"inputs": [typed(str(i)) for i in range(5)]}, "at most 4"),
        ({"inputs": [typed("")]}, r"inputs\[0\] needs a name"),
        ({"inputs": [typed("n" * 257)]}, r"inputs\[0\] has a name longer"),
        ({"inputs": [typed(), typed()]}, "'x' is given twice"),
        ({"inputs": [typed(datatype="")]}, "unknown datatype"),
        ({"inputs": [typed(datatype="FLOAT32")]}, "did you mean FP32"),
        ({"inputs": [typed(shape=[-1])]}, "negative"),
        ({"inputs": [typed(shape=[2**62, 2**62])]}, "more than 1000"),
        ({"inputs": [typed(shape=[0, 2**62])]}, "more than 1000"),
        ({"inputs": [typed(shape=[1] * 9)]}, "at most 8"),
        ({"inputs": [typed(shape=[3])]}, r"2 elements in fp32_contents; shape \[3\] takes 3"),
        ({"inputs": [raw()]}, "0 elements in fp32_contents"),
        ({"inputs": [typed(datatype="FP16")]}, "FP16 is served in raw_input_contents only"),
        ({"inputs": [typed(datatype="BF16")]}, "BF16 is served in raw_input_contents only"),
        ({"inputs": [typed(datatype="INT32")]}, "values in fp32_contents; INT32 travels in int_"),
        (
            {"inputs": [typed(fp32_contents=[1, 2], fp64_contents=[1, 2])]},
            "values in fp64_contents",
        ),
        ({"inputs": [typed(datatype="INT8", int_contents=[1, 128])]}, "element 1 is out of range"),
        ({"inputs": [typed(datatype="INT8", int_contents=[-129, 1])]}, "element 0 is out of range"),
        ({"inputs": [typed(datatype="INT16", int_contents=[2**15, 1])]}, "INT16 takes -32768 to"),
        ({"inputs": [typed(datatype="UINT8", uint_contents=[256, 1])]}, "UINT8 takes 0 to 255"),
        ({"inputs": [typed(datatype="UINT16", uint_contents=[1, 2**16])]}, "takes 0 to 65535"),
        (
            {"inputs": [typed()], "raw_input_contents": [bytes(8)]},
            "contents beside raw_input_contents",
        ),
        (
            {"inputs": [raw(), raw("y")], "raw_input_contents": [bytes(8)]},
            "1 entries for 2 inputs",
        ),
        ({"inputs": [raw()], "raw_input_contents": [bytes(8)] * 2}, "2 entries for 1 inputs"),
        ({"inputs": [raw()], "raw_input_contents": [bytes(7)]}, "has 7 bytes"),
        (
            {
                "inputs": [
                    raw()
                    | {"parameters": {"shared_memory_region": pb.InferParameter(string_param="r")}}
                ]
            },
            "shared memory",
        ),
        ({"parameters": {"k": pb.InferParameter()}}, "parameter 'k' has no value"),
        ({"parameters": {"sequence_id": pb.InferParameter(int64_param=7)}}, "'sequence_id'"),
        ({"parameters": {"sequence_id": pb.InferParameter(string_param="s")}}, "'sequence_id'"),
        ({"parameters": {"timeout": pb.InferParameter(int64_param=-1)}}, "'timeout'"),
        ({"parameters": {"timeout": pb.InferParameter(double_param=1)}}, "'timeout'"),
        ({"parameters": {"priority": pb.InferParameter(bool_param=True)}}, "'priority'"),
        ({"outputs": [{"name": ""}]}, r"outputs\[0\] needs a name"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "'y' is asked for twice"),
    ],
)
def test_each_mistake_is_named(fields: dict[str, Any], said: str) -> None:
    """The message holds the offending field."""
    with pytest.raises(InvalidRequest, match=said):
        decode(**fields)


def test_an_answer_is_always_raw() -> None:
    """Outputs are described in order, their bytes ride beside them."""
    response = InferResponse(
        "m",
        "v1",
        [
            Tensor("p", "FP32", np.array([[0.25, 0.75]], np.float32)),
            Tensor("s", "BYTES", np.array([b"ab"], np.object_)),
        ],
        id="r1",
    )

    message = encode(InferRequest("m", "", []), response)

    assert (message.model_name, message.model_version, message.id) == ("m", "v1", "r1")
    assert [(o.name, o.datatype, list(o.shape)) for o in message.outputs] == [
        ("p", "FP32", [1, 2]),
        ("s", "BYTES", [1]),
    ]
    assert list(message.raw_output_contents) == [
        struct.pack("<2f", 0.25, 0.75),
        struct.pack("<I2s", 2, b"ab"),
    ]
    assert not any(output.HasField("contents") for output in message.outputs)


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        (True, "bool_param", True),
        (5, "int64_param", 5),
        (-(2**63), "int64_param", -(2**63)),
        (2**63, "string_param", "9223372036854775808"),
        ("x", "string_param", "x"),
        (0.5, "string_param", "0.5"),
    ],
)
def test_response_parameters_use_the_kinds_every_client_knows(
    value: ParameterValue, kind: str, written: object
) -> None:
    """KServe's and MLServer's messages end at string_param."""
    response = InferResponse("m", "v1", [], parameters={"k": value})

    parameter = encode(InferRequest("m", "", []), response).parameters["k"]

    assert parameter.WhichOneof("parameter_choice") == kind
    assert getattr(parameter, kind) == written


def test_the_top_classes_of_an_output_can_be_asked_for() -> None:
    """`classification` turns an output into raw strings."""
    request = InferRequest("m", "", [], outputs=[RequestedOutput("y", classification=1)])
    response = InferResponse("m", "v1", [Tensor("y", "FP32", np.array([[1, 2]], np.float32))])

    message = encode(request, response)

    assert message.outputs[0].datatype == "BYTES"
    assert message.raw_output_contents[0][4:] == b"2.000000:1"


def test_a_streams_answer_says_that_it_is_the_last() -> None:
    """One answer per request: the parameter clients wait for is always true."""
    encoded = grpc.encode_stream(InferRequest("m", "", [], id="r"), InferResponse("m", "v1", []))
    answer = pb.ModelStreamInferResponse.FromString(encoded)

    assert answer.error_message == ""
    assert answer.infer_response.id == "r"
    assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_a_failed_request_of_a_stream_keeps_its_id() -> None:
    """The error is a message; the stream goes on."""
    answer = pb.ModelStreamInferResponse.FromString(grpc.encode_stream_error("no such model", "r2"))

    assert answer.error_message == "no such model"
    assert answer.infer_response.id == "r2"
    assert answer.infer_response.parameters["triton_final_response"].bool_param
