"""Whether an answer with success is one: over HTTP in JSON and binary, and over gRPC."""

import json
from typing import Any

import numpy as np
import pytest

from serving.loadtest.answers import Expected, Facts, Limits, Wrong, read_grpc, read_json
from serving.protocol._generated import inference_pb2 as pb

SHARE = Expected(model="m", outputs={"p": Limits(0.0, 1.0)})
WAYS = ("json", "binary", "grpc", "grpc typed")


def read(
    way: str,
    values: list[float],
    expected: Expected = SHARE,
    *,
    model: str = "m",
    version: str = "v1",
    rows: int | None = 2,
    shape: tuple[int, ...] = (2,),
    outputs: int = 1,
) -> Facts | Wrong:
    """An answer with `outputs` outputs `p`, as it comes over the wire."""
    raw = np.array(values, "<f4").tobytes()
    if way.startswith("grpc"):
        message = pb.ModelInferResponse(model_name=model, model_version=version)
        message.parameters["model_role"].string_param = "canary"
        for _ in range(outputs):
            one = message.outputs.add(name="p", datatype="FP32", shape=shape)
            if way == "grpc":
                message.raw_output_contents.append(raw)
            else:
                one.contents.fp32_contents.extend(values)
        return read_grpc(message, expected, rows)
    entry: dict[str, Any] = {"name": "p", "datatype": "FP32", "shape": list(shape)}
    # JSON has no NaN; servers write null for it.
    numbers = [None if value != value else value for value in values]  # noqa: PLR0124
    entry |= (
        {"parameters": {"binary_data_size": len(raw)}} if way == "binary" else {"data": numbers}
    )
    document = json.dumps(
        {
            "model_name": model,
            "model_version": version,
            "parameters": {"model_role": "canary"},
            "outputs": [entry] * outputs,
        }
    ).encode()
    if way == "binary":
        return read_json(document + raw * outputs, len(document), expected, rows)
    return read_json(document, None, expected, rows)


@pytest.mark.parametrize("way", WAYS)
def test_a_right_answer_says_who_gave_it(way: str) -> None:
    """The bounds themselves are within."""
    assert read(way, [0.0, 1.0]) == Facts("m:v1", "canary", "")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("values", "said"), [([0.5, 1.5], "1.5"), ([-1.0, 0.5], "-1"), ([0.5, float("nan")], "nan")]
)
def test_a_number_out_of_range_is_wrong(way: str, values: list[float], said: str) -> None:
    """Also if it is none at all."""
    assert read(way, values) == Wrong("wrong", f"output `p` has {said}, not from 0 to 1")


@pytest.mark.parametrize("way", WAYS)
def test_no_numbers_are_within_no_bounds(way: str) -> None:
    """A shape alone says nothing of them."""
    assert read(way, []) == Wrong("wrong", "output `p` has no numbers")
    assert isinstance(read(way, [], Expected(model="m", outputs={"p": Limits()})), Facts)


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_of_another_model_or_version_is_wrong(way: str) -> None:
    """However well it is formed."""
    pinned = Expected(model="m", version="v2")

    assert read(way, [0.5, 0.5], model="n") == Wrong("wrong", "model `m` was asked, `n` answered")
    assert read(way, [0.5, 0.5], pinned) == Wrong("wrong", "version `v2` was asked, `v1` answered")


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_without_the_outputs_is_wrong(way: str) -> None:
    """None at all, or not the one that is expected."""
    other = Expected(model="m", outputs={"q": Limits()})

    assert read(way, [0.5, 0.5], outputs=0) == Wrong("wrong", "an answer without outputs")
    assert read(way, [0.5, 0.5], other) == Wrong("wrong", "there is no output `q`, only p")


@pytest.mark.parametrize("way", WAYS)
def test_other_rows_than_were_asked_are_wrong_where_they_count(way: str) -> None:
    """Somebody's answer is missing, or somebody got another's."""
    assert read(way, [0.5, 0.5], rows=3) == Wrong("wrong", "output `p` has shape [2] for 3 rows")
    assert isinstance(read(way, [0.5, 0.5], rows=None), Facts)
    assert isinstance(read(way, [0.5, 0.5], Expected(model="m", rows=False), rows=3), Facts)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"model_name":"m","outputs":[{}]}', b'{"model_name"', b"<p>"]
)
def test_what_is_not_of_the_protocol_is_unreadable(body: bytes) -> None:
    """It is quoted."""
    read = read_json(body, None, SHARE, 1)

    assert isinstance(read, Wrong)
    assert read.status == "unreadable"
    assert read.words.endswith(body.decode())


def test_nested_lists_are_the_same_numbers() -> None:
    """The protocol allows either."""
    body = b'{"model_name":"m","outputs":[{"name":"p","shape":[2,2],"data":[[0,1],[0.5,2]]}]}'

    assert read_json(body, None, SHARE, 2) == Wrong("wrong", "output `p` has 2, not from 0 to 1")


def test_half_precision_of_the_brain_is_read_as_its_upper_half() -> None:
    """BF16 travels as the upper 16 bits of FP32."""
    raw = (np.array([0.5, 1.5], "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    message = pb.ModelInferResponse(model_name="m", raw_output_contents=[raw])
    message.outputs.add(name="p", datatype="BF16", shape=[2])

    assert read_grpc(message, SHARE, 2) == Wrong("wrong", "output `p` has 1.5, not from 0 to 1")


def test_an_output_without_its_raw_content_is_unreadable() -> None:
    """Raw contents are of all outputs or of none."""
    message = pb.ModelInferResponse(model_name="m", raw_output_contents=[b"1234"])
    for name in ("q", "p"):
        message.outputs.add(name=name, datatype="FP32", shape=[1])

    assert read_grpc(message, SHARE, 1) == Wrong(
        "unreadable", "an output that cannot be read: 1 raw contents for 2 outputs"
    )


def test_a_raw_output_of_a_broken_size_is_unreadable() -> None:
    """Its bytes are no whole numbers."""
    message = pb.ModelInferResponse(model_name="m", raw_output_contents=[b"123"])
    message.outputs.add(name="p", datatype="FP32", shape=[1])

    read = read_grpc(message, SHARE, 1)
    assert isinstance(read, Wrong)
    assert read.status == "unreadable"
