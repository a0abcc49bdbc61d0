"""HTTP inference bodies: what they mean, and how each mistake is named."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from serving.errors import InvalidRequest
from serving.protocol import rest
from serving.protocol.tensors import TensorLimits
from serving.types import InferRequest, RequestedOutput, TensorMetadata

LIMITS = TensorLimits(max_elements=10_000, max_inputs=4)


def decode(
    body: bytes | dict[str, Any], header_length: int | None = None, **kwargs: Any
) -> InferRequest:
    """Decode for model `m`, writing the body as JSON if it is a dict."""
    if isinstance(body, dict):
        body = orjson.dumps(body)
    return rest.decode_infer(body, header_length, model="m", version="v1", limits=LIMITS, **kwargs)


def entry(name: str = "x", **changes: Any) -> dict[str, Any]:
    """A valid JSON input, changed."""
    return {"name": name, "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]} | changes


def without(key: str) -> dict[str, Any]:
    """A valid JSON input that lacks a key."""
    return {k: v for k, v in entry().items() if k != key}


def binary(size: object = 8, **changes: Any) -> dict[str, Any]:
    """A valid binary input, changed."""
    return {
        "name": "x",
        "shape": [2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": size},
    } | changes


def refusal(body: bytes | dict[str, Any], header_length: int | None = None, **kwargs: Any) -> str:
    """The message a body is refused with."""
    with pytest.raises(InvalidRequest) as caught:
        decode(body, header_length, **kwargs)
    return caught.value.message


def test_a_whole_request_is_understood() -> None:
    """Id, parameters, inputs and requested outputs all arrive."""
    request = decode(
        {
            "id": "r1",
            "model_name": "ignored",
            "parameters": {"timeout": 5000, "priority": 1, "note": "kept", "rate": 0.5},
            "inputs": [entry("a"), entry("b", shape=[1, 2], data=[[3, 4]])],
            "outputs": [
                {"name": "p", "parameters": {"binary_data": True}},
                {"name": "q", "parameters": {"binary_data": False, "classification": 3}},
                {"name": "r"},
            ],
        }
    )

    assert (request.model, request.version, request.id) == ("m", "v1", "r1")
    assert request.parameters == {"timeout": 5000, "priority": 1, "note": "kept", "rate": 0.5}
    assert [(t.name, t.datatype, t.data.tolist()) for t in request.inputs] == [
        ("a", "FP32", [1.0, 2.0]),
        ("b", "FP32", [[3.0, 4.0]]),
    ]
    assert request.outputs == [
        RequestedOutput("p", True),
        RequestedOutput("q", False, 3),
        RequestedOutput("r"),
    ]
    assert not request.binary_output


def test_null_counts_as_absent() -> None:
    """Some clients write null for everything they leave out."""
    request = decode(
        {
            "id": None,
            "parameters": None,
            "outputs": None,
            "inputs": [entry(parameters=None)],
        }
    )

    assert (request.id, request.parameters, request.outputs) == ("", {}, [])


def test_two_requests_share_no_mutable_defaults() -> None:
    """What the pipeline adds to one request's parameters does not show up in the next."""
    first, second = decode({"inputs": [entry()]}), decode({"inputs": [entry()]})
    first.parameters["seen"] = True
    first.outputs.append(RequestedOutput("y"))

    assert second.parameters == {}
    assert second.outputs == []


@pytest.mark.parametrize(("wish", "binary_output"), [(True, True), (False, False)])
def test_the_request_may_ask_for_binary_outputs(wish: bool, binary_output: bool) -> None:
    """`binary_data_output` is the default for outputs that do not say."""
    body = {"parameters": {"binary_data_output": wish}, "inputs": [entry()]}

    assert decode(body).binary_output is binary_output


def test_binary_and_json_inputs_mix() -> None:
    """Binary tensors follow the JSON in the order of the inputs that have a size."""
    head = orjson.dumps(
        {
            "inputs": [
                binary(8, name="a"),
                entry("b", datatype="BYTES", data=["x", "ä"]),
                binary(9, name="c", shape=[1, 1], datatype="BYTES"),
                binary(0, name="d", shape=[0, 3]),
            ]
        }
    )
    tail = struct.pack("<2f", 1.5, -2.0) + struct.pack("<I5s", 5, b"\xffbyte")

    request = decode(head + tail, len(head))

    a, b, c, d = request.inputs
    assert a.data.tolist() == [1.5, -2.0]
    assert b.data.tolist() == [b"x", "ä".encode()]
    assert c.data.tolist() == [[b"\xffbyte"]]
    assert d.data.shape == (0, 3)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"inputs":[', "not valid JSON"),
        (b"{}x", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"id":"\xff"}', "not valid UTF-8"),
        (b'{"id":"\\ud800"}', "surrogate"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"x"', "must be a JSON object"),
        (b"{'inputs':[]}", "not valid JSON"),
        (b'{"inputs":[{"data":[NaN]}]}', "JSON has no NaN or Infinity"),
        (b'{"inputs":[{"data":[1,Infinity]}]}', "JSON has no NaN or Infinity"),
        (b'{"inputs":[{"data":[1,-Infinity]}]}', "JSON has no NaN or Infinity"),
        (b'{"inputs":[{"data":[1e999]}]}', "infinity"),
        (b'{"inputs":[{"data":[' + b"1" * 200_000 + b"]}]}", "not valid JSON"),
        (b"[" * 60_000, "nests deeper than 16"),
        (b"[" * 1_000_000, "nests deeper than 16|nested or side by side"),
        (b'{"a":' * 100_000, "nests deeper than 16|nested or side by side"),
        (b'{"inputs":' + b"[" * 2000 + b"]" * 2000 + b"}", "nests deeper than 16"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_text_that_is_no_json_request_is_refused(body: bytes, said: str) -> None:
    """Malformed, truncated, not an object, or with words JSON does not have."""
    assert any(words in refusal(body) for words in said.split("|"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "inputs must be"),
        ({"inputs": None}, "inputs must be"),
        ({"inputs": []}, "inputs must be"),
        ({"inputs": {}}, "inputs must be"),
        ({"inputs": [5]}, "inputs[0] must be an object"),
        ({"inputs": [entry(), None]}, "inputs[1] must be an object"),
        ({"inputs": [without("name")]}, "inputs[0] needs a name"),
        ({"inputs": [entry("")]}, "inputs[0] needs a name"),
        ({"inputs": [entry(name=5)]}, "inputs[0] needs a name"),
        ({"inputs": [entry("n" * 257)]}, "inputs[0] has a name longer"),
        ({"inputs": [entry(), entry()]}, "input 'x' is given twice"),
        ({"inputs": [entry(str(i)) for i in range(5)]}, "at most 4"),
        ({"inputs": [without("shape")]}, "'x' needs a shape"),
        ({"inputs": [entry(shape=None)]}, "'x' needs a shape"),
        ({"inputs": [entry(shape=2)]}, "'x' needs a shape"),
        ({"inputs": [entry(shape=[-1])]}, "negative"),
        ({"inputs": [entry(shape=[10_001])]}, "more than 10000"),
        ({"inputs": [without("datatype")]}, "'x' needs a datatype"),
        ({"inputs": [entry(datatype="FLOAT32")]}, "did you mean FP32"),
        ({"inputs": [without("data")]}, "'x' has neither data nor"),
        ({"inputs": [entry(data=None)]}, "'x' has neither data nor"),
        ({"inputs": [entry(data=[1])]}, "1 elements; shape [2] takes 2"),
        ({"inputs": [entry(data=[1, None])]}, "element 1 is null"),
        ({"inputs": [entry(parameters=[])]}, "input 'x': parameters must be an object"),
        ({"inputs": [entry(parameters={"k": []})]}, "parameter 'k' must be"),
        ({"inputs": [entry(parameters={"k": {"a": 1}})]}, "parameter 'k' must be"),
        ({"inputs": [entry(parameters={"k": None})]}, "parameter 'k' must be"),
        (
            {"inputs": [entry(parameters={"shared_memory_region": "r"})]},
            "shared memory is not served",
        ),
        (
            {"inputs": [entry(parameters={"binary_data_size": 8})]},
            "both data and binary_data_size",
        ),
        ({"inputs": [binary()]}, "no header Inference-Header-Content-Length"),
        ({"inputs": [entry()], "id": 5}, "id must be a string"),
        ({"inputs": [entry()], "id": ["a"]}, "id must be a string"),
        ({"inputs": [entry()], "parameters": []}, "the request: parameters must be"),
        ({"inputs": [entry()], "parameters": {"k": None}}, "parameter 'k' must be"),
        ({"inputs": [entry()], "parameters": {"sequence_id": 7}}, "'sequence_id'"),
        ({"inputs": [entry()], "parameters": {"sequence_id": "s"}}, "'sequence_id'"),
        ({"inputs": [entry()], "parameters": {"sequence_id": True}}, "'sequence_id'"),
        ({"inputs": [entry()], "parameters": {"timeout": -1}}, "'timeout' must be"),
        ({"inputs": [entry()], "parameters": {"timeout": 1.5}}, "of microseconds"),
        ({"inputs": [entry()], "parameters": {"timeout": "5"}}, "'timeout' must be"),
        ({"inputs": [entry()], "parameters": {"timeout": True}}, "'timeout' must be"),
        ({"inputs": [entry()], "parameters": {"priority": -1}}, "'priority' must be"),
        ({"inputs": [entry()], "parameters": {"priority": 0.0}}, "'priority' must be"),
        (
            {"inputs": [entry()], "parameters": {"binary_data_output": 1}},
            "'binary_data_output' must be true or false",
        ),
        ({"inputs": [entry()], "outputs": {}}, "outputs must be an array"),
        ({"inputs": [entry()], "outputs": ["y"]}, "outputs[0] must be an object"),
        ({"inputs": [entry()], "outputs": [{}]}, "outputs[0] needs a name"),
        ({"inputs": [entry()], "outputs": [{"name": "y"}] * 2}, "'y' is asked for twice"),
        (
            {"inputs": [entry()], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            "'y': parameter 'binary_data'",
        ),
        (
            {"inputs": [entry()], "outputs": [{"name": "y", "parameters": {"classification": -1}}]},
            "'y': parameter 'classification'",
        ),
        (
            {
                "inputs": [entry()],
                "outputs": [{"name": "y", "parameters": {"classification": True}}],
            },
            "'y': parameter 'classification'",
        ),
        (
            {
                "inputs": [entry()],
                "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}],
            },
            "'y': shared memory",
        ),
        ({"inputs": [entry()], "outputs": [{"name": "y", "parameters": 5}]}, "output 'y'"),
    ],
)
def test_each_mistake_is_named(body: dict[str, Any], said: str) -> None:
    """The message holds the offending field."""
    assert said in refusal(body)


@pytest.mark.parametrize("value", [0, "", "0", None])
def test_no_sequence_is_no_mistake(value: object) -> None:
    """Clients send a sequence id of zero for stateless models."""
    parameters = {} if value is None else {"sequence_id": value, "sequence_start": False}

    assert decode({"inputs": [entry()], "parameters": parameters}).parameters == parameters


@pytest.mark.parametrize(
    ("inputs", "tail", "said"),
    [
        ([binary(7)], 7, "has 7 bytes; FP32 of shape [2] takes 8"),
        ([binary(8)], 7, "binary_data_size is 8, but only 7 bytes"),
        ([binary(8)], 0, "binary_data_size is 8, but only 0 bytes"),
        ([binary(8)], 9, "1 bytes after the JSON belong to no input"),
        ([entry()], 1, "1 bytes after the JSON belong to no input"),
        ([binary(8), binary(8, name="y")], 12, "input 'y': binary_data_size is 8, but only 4"),
        ([binary(-1)], 0, "non-negative whole number"),
        ([binary(8.0)], 8, "non-negative whole number"),
        ([binary("8")], 8, "non-negative whole number"),
        ([binary(True)], 1, "non-negative whole number"),
        ([binary(2**63)], 8, "only 8 bytes"),
        ([binary(8, data=[1.0, 2.0])], 8, "both data and binary_data_size"),
        ([binary(8, shape=[2**62, 4])], 8, "more than 10000 elements"),
        ([binary(8, datatype="FP33")], 8, "did you mean FP"),
        ([binary(8, datatype="BYTES")], 8, "belong"),
    ],
)
def test_binary_sizes_must_agree(inputs: list[Any], tail: int, said: str) -> None:
    """Each size with its shape, and all of them with the body."""
    head = orjson.dumps({"inputs": inputs})
    if said == "belong":
        # Two empty strings fill eight bytes; one string of eight does not fit.
        assert decode(head + bytes(8), len(head)).inputs[0].data.tolist() == [b"", b""]
        return

    assert said in refusal(head + bytes(tail), len(head))


@pytest.mark.parametrize("length", [-1, 10**9, 1, 5])
def test_a_wrong_header_length_is_refused(length: int) -> None:
    """Negative, beyond the body, or in the middle of the JSON."""
    assert refusal(orjson.dumps({"inputs": [entry()]}), length)


@pytest.mark.parametrize("text", ["", "-1", "+5", "1.0", "0x10", "5 ", "٣", "1" * 11, "abc"])
def test_a_header_length_is_a_decimal_number(text: str) -> None:
    """The message names the header."""
    with pytest.raises(InvalidRequest, match="Inference-Header-Content-Length"):
        rest.parse_header_length(text)


def test_a_header_length_is_read() -> None:
    """Digits only."""
    assert rest.parse_header_length("0117") == 117


@pytest.mark.parametrize(
    ("shape", "datatype", "body", "expected"),
    [
        ((2, 3), "INT8", bytes(range(6)), [[0, 1, 2], [3, 4, 5]]),
        ((-1, 3), "INT8", bytes(range(6)), [[0, 1, 2], [3, 4, 5]]),
        ((3, -1), "INT8", bytes(range(6)), [[0, 1], [2, 3], [4, 5]]),
        ((-1, -1), "INT8", bytes(range(3)), [[0, 1, 2]]),
        ((-1, 2, -1), "UINT16", bytes([1, 0, 2, 0]), [[[1], [2]]]),
        ((-1,), "FP32", struct.pack("<f", 1.5), [1.5]),
        ((-1,), "FP32", b"", []),
        ((1,), "BYTES", b"\xff\x00jpeg", [b"\xff\x00jpeg"]),
        ((-1, 1), "BYTES", b"", [[b""]]),
        ((-1, -1), "BYTES", b"x", [[b"x"]]),
    ],
)
def test_a_raw_body_is_the_only_input(
    shape: tuple[int, ...], datatype: str, body: bytes, expected: list[Any]
) -> None:
    """With a header length of 0 one variable dimension follows from the size; a batch is one."""
    request = decode(body, 0, raw_input=TensorMetadata("only", datatype, shape))

    [tensor] = request.inputs
    assert (tensor.name, tensor.datatype) == ("only", datatype)
    assert tensor.data.tolist() == expected
    assert request.binary_output
    assert request.outputs == []


@pytest.mark.parametrize(
    ("declared", "body", "said"),
    [
        (None, b"1234", "exactly one input"),
        (TensorMetadata("x", "FP32", (2, 3)), bytes(20), "has 20 bytes"),
        (TensorMetadata("x", "FP32", (-1, 3)), bytes(13), "has 13 bytes"),
        (TensorMetadata("x", "FP32", (-1, -1, -1)), bytes(4), "several variable dimensions"),
        (TensorMetadata("x", "BYTES", (2,)), b"ab", "only one"),
        (TensorMetadata("x", "INT8", (-1,)), bytes(10_001), "more than 10000"),
        (TensorMetadata("x", "INT8", (-1, 0)), b"a", "has 1 bytes"),
    ],
)
def test_a_raw_body_that_does_not_fit_is_refused(
    declared: TensorMetadata | None, body: bytes, said: str
) -> None:
    """No single input, a size that does not divide, or too many unknowns."""
    assert said in refusal(body, 0, raw_input=declared)


def test_the_message_of_a_refusal_is_short() -> None:
    """Whatever a caller sends, little of it comes back."""
    long = "k" * 100_000
    for body in (
        {"inputs": [entry(datatype=long)]},
        {"inputs": [entry()], "parameters": {long: None}},
        {"inputs": [entry(shape=list(range(100_000)))]},
        {"inputs": [entry(data=[long])]},
    ):
        assert len(refusal(body)) < 300


def test_large_requests_are_read_without_copies_of_their_floats() -> None:
    """A batch of rows, nested, comes out as one contiguous array of the right type."""
    rows = np.random.default_rng(3).random((100, 50), np.float32)

    request = decode({"inputs": [entry(shape=[100, 50], data=rows.tolist())]})

    assert np.array_equal(request.inputs[0].data, rows)
    assert request.inputs[0].data.flags.c_contiguous
