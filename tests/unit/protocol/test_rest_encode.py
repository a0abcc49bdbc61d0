"""Answers over HTTP."""

import struct
from typing import Any

import numpy as np
import orjson
import pytest

from serving.errors import InvalidRequest
from serving.protocol import rest
from serving.types import NUMPY_OF, InferRequest, InferResponse, RequestedOutput, Tensor

ASK = InferRequest("m", "", [])


def answer(*tensors: Tensor, **changes: Any) -> InferResponse:
    """An answer with these outputs."""
    return InferResponse("m", "v1", list(tensors), **changes)


def floats(*values: float, name: str = "y", shape: tuple[int, ...] | None = None) -> Tensor:
    """An FP32 output."""
    data = np.array(values, np.float32)
    return Tensor(name, "FP32", data if shape is None else data.reshape(shape))


def test_an_answer_is_flat_row_major_json() -> None:
    """Names, version, id, parameters and data in the protocol's form."""
    body, json_length = rest.encode_infer(
        InferRequest("m", "", [], id="r1"),
        answer(
            floats(0.1, 0.9, 0.25, 0.75, shape=(2, 2)),
            id="r1",
            parameters={"model_role": "canary", "n": 1, "ok": True, "p": 0.5},
        ),
    )

    assert json_length is None
    assert orjson.loads(body) == {
        "model_name": "m",
        "model_version": "v1",
        "id": "r1",
        "parameters": {"model_role": "canary", "n": 1, "ok": True, "p": 0.5},
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [0.1, 0.9, 0.25, 0.75]}
        ],
    }


def test_floats_are_written_with_the_digits_of_their_width() -> None:
    """An FP32 0.1 is 0.1, not the double nearest to it."""
    body, _ = rest.encode_infer(ASK, answer(floats(0.1)))

    assert b'"data":[0.1]' in body


def test_nan_and_infinity_become_null() -> None:
    """JSON has no word for them; the protocol's client reads null as NaN."""
    body, _ = rest.encode_infer(ASK, answer(floats(float("nan"), float("inf"), -float("inf"))))

    assert b'"data":[null,null,null]' in body


def test_absent_fields_are_left_out() -> None:
    """No id, no parameters, no version: no keys."""
    body, _ = rest.encode_infer(ASK, InferResponse("m", "", [floats(1)]))

    assert set(orjson.loads(body)) == {"model_name", "outputs"}


def test_the_requests_id_is_echoed() -> None:
    """Also when whoever built the answer did not repeat it."""
    body, _ = rest.encode_infer(InferRequest("m", "", [], id="abc"), answer(floats(1)))

    assert orjson.loads(body)["id"] == "abc"


@pytest.mark.parametrize(
    ("datatype", "values", "written"),
    [
        ("BOOL", [True, False], b"[true,false]"),
        ("INT8", [-128, 127], b"[-128,127]"),
        ("UINT8", [0, 255], b"[0,255]"),
        ("INT16", [-32768], b"[-32768]"),
        ("UINT16", [65535], b"[65535]"),
        ("INT32", [-(2**31)], b"[-2147483648]"),
        ("UINT32", [2**32 - 1], b"[4294967295]"),
        ("INT64", [-(2**63), 2**63 - 1], b"[-9223372036854775808,9223372036854775807]"),
        ("UINT64", [2**64 - 1], b"[18446744073709551615]"),
        ("FP64", [0.1, 1e300], b"[0.1,1e300]"),
        ("FP32", [], b"[]"),
        ("BYTES", [b"a", "ä".encode()], '["a","ä"]'.encode()),
        ("BYTES", [], b"[]"),
    ],
)
def test_every_datatype_is_written_in_json(
    datatype: str, values: list[Any], written: bytes
) -> None:
    """Integers whole, booleans as words, bytes as text."""
    data = np.empty(len(values), NUMPY_OF[datatype])
    data[:] = values

    body, _ = rest.encode_infer(ASK, answer(Tensor("y", datatype, data)))

    assert b'"data":' + written.replace(b"1e300", b"1e+300") in body.replace(b"e300", b"e+300")


def test_outputs_may_mix_binary_and_json() -> None:
    """Each output as it was asked for; binary ones follow the JSON in their order."""
    request = InferRequest(
        "m",
        "",
        [],
        outputs=[
            RequestedOutput("a", binary=True),
            RequestedOutput("b", binary=False),
            RequestedOutput("c", binary=True),
        ],
        binary_output=False,
    )
    strings = Tensor("c", "BYTES", np.array([b"\xff", b"xy"], np.object_))

    body, json_length = rest.encode_infer(
        request, answer(floats(1.5, name="a"), floats(2.5, name="b"), strings)
    )

    assert json_length is not None
    head, tail = orjson.loads(body[:json_length]), body[json_length:]
    a, b, c = head["outputs"]
    assert a["parameters"] == {"binary_data_size": 4}
    assert "data" not in a
    assert b["data"] == [2.5]
    assert "parameters" not in b
    assert c["parameters"] == {"binary_data_size": 11}
    assert tail == struct.pack("<fI1sI2s", 1.5, 1, b"\xff", 2, b"xy")


@pytest.mark.parametrize("shape", [(0,), (0, 4)])
def test_an_empty_output_is_written_either_way(shape: tuple[int, ...]) -> None:
    """No elements: an empty array, or a size of zero."""
    tensor = Tensor("y", "FP32", np.empty(shape, np.float32))

    body, length = rest.encode_infer(ASK, answer(tensor))
    assert length is None
    assert orjson.loads(body)["outputs"][0]["data"] == []

    body, length = rest.encode_infer(InferRequest("m", "", [], binary_output=True), answer(tensor))
    assert length == len(body)
    assert orjson.loads(body)["outputs"][0]["parameters"] == {"binary_data_size": 0}


def test_the_requests_default_decides_for_outputs_that_do_not_say() -> None:
    """`binary_data_output` covers all outputs but those with a wish of their own."""
    request = InferRequest(
        "m", "", [], outputs=[RequestedOutput("a"), RequestedOutput("b", False)], binary_output=True
    )

    body, length = rest.encode_infer(request, answer(floats(1, name="a"), floats(2, name="b")))

    a, b = orjson.loads(body[:length])["outputs"]
    assert a["parameters"] == {"binary_data_size": 4}
    assert b["data"] == [2.0]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_goes_out_binary_or_not_at_all(datatype: str) -> None:
    """There is no JSON form; asked for binary, the two bytes are there."""
    tensor = Tensor("y", datatype, np.zeros(3, NUMPY_OF[datatype]))

    with pytest.raises(InvalidRequest, match="binary_data"):
        rest.encode_infer(ASK, answer(tensor))
    body, length = rest.encode_infer(InferRequest("m", "", [], binary_output=True), answer(tensor))
    assert length is not None
    assert len(body) - length == 6


def test_the_top_classes_of_an_output_can_be_asked_for() -> None:
    """`classification` turns an output into strings of value and index."""
    request = InferRequest("m", "", [], outputs=[RequestedOutput("y", classification=2)])

    body, _ = rest.encode_infer(request, answer(floats(0.25, 0.5, 0.125, shape=(1, 3))))

    assert orjson.loads(body)["outputs"] == [
        {"name": "y", "datatype": "BYTES", "shape": [1, 2], "data": ["0.500000:1", "0.250000:0"]}
    ]
