"""Questions to other servers and their answers."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InferenceFailed, InvalidRequest
from serving.protocol import rest
from serving.protocol.rest_client import (
    decode_answer,
    decode_error,
    decode_metadata,
    encode_question,
)
from serving.protocol.shapes import TensorLimits
from serving.types import NUMPY_OF, InferResponse, Tensor, TensorMetadata

JSON_TYPES = sorted(NUMPY_OF.keys() - {"FP16", "BF16"})


def _array(datatype: str) -> Any:
    if datatype == "BYTES":
        return np.array([["grün".encode(), b""]], object)
    return np.array([[0, 1]]).astype(NUMPY_OF[datatype])


def _asked(datatype: str, *, binary: bool) -> tuple[bytes, int | None]:
    pieces, length = encode_question(
        {"A": _array(datatype)},
        [TensorMetadata("A", datatype, (-1, 2)), TensorMetadata("LEFT_OUT", "FP32", (1,))],
        ["Y"],
        parameters={"shadow": True},
        binary=binary,
    )
    return b"".join(pieces), length


@pytest.mark.parametrize("datatype", sorted(NUMPY_OF))
@pytest.mark.parametrize("binary", [True, False])
def test_our_server_reads_what_our_client_writes(datatype: str, *, binary: bool) -> None:
    """Every datatype, as raw bytes and as JSON; and writes an answer that the client reads."""
    if not binary and datatype not in JSON_TYPES:
        with pytest.raises(InvalidRequest, match="JSON cannot carry"):
            _asked(datatype, binary=binary)
        return
    body, length = _asked(datatype, binary=binary)

    request = rest.decode_infer(body, length, model="m", version="v", limits=TensorLimits())

    assert [one.name for one in request.inputs] == ["A"]
    assert request.inputs[0].data.tolist() == _array(datatype).tolist()
    assert request.parameters == {"shadow": True}
    assert [one.name for one in request.outputs] == ["Y"]

    response = InferResponse(
        "m", "v", [Tensor("Y", datatype, _array(datatype))], parameters={"queue_seconds": 0.5}
    )
    answer, header = rest.encode_infer(request, response)
    read = decode_answer(answer, header, ["Y"])

    assert (header is not None) == binary
    assert read.outputs[0].tolist() == _array(datatype).tolist()
    assert read.outputs[0].dtype == NUMPY_OF[datatype]
    assert read.parameters == {"queue_seconds": 0.5}


def test_outputs_come_in_the_order_asked_for() -> None:
    """Servers may answer in another, and with more."""
    outputs = [
        {"name": name, "datatype": "INT32", "shape": [1], "data": [value]}
        for name, value in (("B", 2), ("EXTRA", 9), ("A", 1))
    ]

    read = decode_answer(orjson.dumps({"outputs": outputs}), None, ["A", "B"])

    assert [one.tolist() for one in read.outputs] == [[1], [2]]


def test_null_in_json_is_nan() -> None:
    """JSON has no word for it, and servers write null."""
    output = {"name": "Y", "datatype": "FP32", "shape": [1, 2], "data": [None, 0.5]}

    read = decode_answer(orjson.dumps({"outputs": [output]}), None, ["Y"])

    assert np.isnan(read.outputs[0][0, 0])
    assert read.outputs[0].dtype == np.float32


def test_nested_json_data_is_taken() -> None:
    """Floats too; the protocol allows both."""
    output = {"name": "Y", "datatype": "FP64", "shape": [2, 1], "data": [[0.25], [0.5]]}

    read = decode_answer(orjson.dumps({"outputs": [output]}), None, ["Y"])

    assert read.outputs[0].tolist() == [[0.25], [0.5]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"outputs": null}',
        b'{"outputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "Y", "datatype": "FP32", "shape": [2], "data": [1]}]}',
        b'{"outputs": [{"name": "Y", "datatype": "FP31", "shape": [1], "data": [1]}]}',
        b'{"outputs": [{"name": "Y", "datatype": "INT8", "shape": [1], "data": ["a"]}]}',
        b'{"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1], "data": ["a"]}]}',
        (
            b'{"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1],'
            b' "parameters": {"binary_data_size": 4}}]}'
        ),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure(body: bytes) -> None:
    """Never another exception."""
    with pytest.raises(InferenceFailed, match="the answer cannot be read"):
        decode_answer(body, None, ["Y"])


@given(body=st.binary(max_size=200), header=st.none() | st.integers(-5, 250))
def test_no_bytes_break_the_reader(body: bytes, header: int | None) -> None:
    """Whatever a server sends."""
    with pytest.raises(InferenceFailed):
        decode_answer(body, header, ["Y"])


def test_error_texts_are_found_and_cut() -> None:
    """`error` is the protocol's word, `detail` is FastAPI's."""
    assert decode_error(b'{"error": "no\\n  such model"}') == "no such model"
    assert decode_error(b'{"detail": "x"}') == "x"
    assert decode_error(b"<html>") == decode_error(b"[]") == ""
    assert len(decode_error(orjson.dumps({"error": "x" * 999}))) == 200


def test_metadata_is_read() -> None:
    """Names, datatypes, shapes."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [-1, 4]}
    text = orjson.dumps({"name": "m", "inputs": [tensor], "outputs": [tensor]})

    assert decode_metadata(text) == ([TensorMetadata("X", "FP32", (-1, 4))],) * 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"inputs": [{"name": "X"}], "outputs": []}',
        b'{"inputs": [{"name": "X", "datatype": "FP31", "shape": [1]}], "outputs": []}',
    ],
)
def test_what_is_no_metadata_says_so(text: bytes) -> None:
    """In a message for whoever wrote the URL."""
    with pytest.raises(InvalidRequest):
        decode_metadata(text)
