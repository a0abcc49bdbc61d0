import contextlib
import json
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import InvalidRequest
from serving.protocol import rest, rest_plain
from serving.protocol.shapes import TensorLimits

LIMITS = TensorLimits()
PLAIN = {"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP32", "data": [1, 2.5, -3]}]}


def plain(document: Any) -> Any:
    """Try the short way."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return rest_plain.decode(body, "m", "", LIMITS)


def described(body: bytes) -> Any:
    """What the codec makes of a body: a comparable request, or its complaint."""
    try:
        request = rest.decode_infer(body, None, model="m", version="v", limits=LIMITS)
    except InvalidRequest as error:
        return error.message
    tensors = [
        (t.name, t.datatype, t.data.shape, t.data.dtype, t.data.tobytes(), t.data.tolist())
        for t in request.inputs
    ]
    rest_of_it = (request.id, request.parameters, request.outputs, request.binary_output)
    return request.model, request.version, tensors, *rest_of_it


def test_a_plain_request_goes_the_short_way() -> None:
    """Named tensors of flat numbers, with or without an id."""
    request = plain({**PLAIN, "id": "r1"})

    assert request is not None
    assert request.id == "r1"
    np.testing.assert_array_equal(request.inputs[0].data, np.array([[1, 2.5, -3]], np.float32))


@pytest.mark.parametrize(
    "document",
    [
        {**PLAIN, "parameters": {"timeout": 5}},
        {**PLAIN, "outputs": [{"name": "Y"}]},
        {**PLAIN, "model_name": "m"},
        {"inputs": PLAIN["inputs"] * 2},
        {"inputs": []},
        {"inputs": [{**PLAIN["inputs"][0], "data": [[1, 2, 3]]}]},
        {"inputs": [{**PLAIN["inputs"][0], "datatype": "BYTES", "data": ["a", "b", "c"]}]},
        {"inputs": [{**PLAIN["inputs"][0], "name": "a:b"}]},
        {"inputs": [{**PLAIN["inputs"][0], "data": [1, 2]}]},
        {"inputs": [{**PLAIN["inputs"][0], "data": [1, 2, 1e39]}]},
        b'{"inputs":[{"name":"X","name":"X","shape":[1],"datatype":"FP32","data":[1]}]}',
        b'{"inputs":[{"name":"X","shape":[1],"datatype":"FP32","data":' + b"[" * 5000,
        b"",
    ],
)
def test_whatever_is_odd_is_left_to_the_long_way(document: Any) -> None:
    """Right or wrong, it is not this module's business to say which."""
    assert plain(document) is None


VALUES = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([None, True, "x", [1], 1e39, 0.1]),
)
INPUT = st.fixed_dictionaries(
    {
        "name": st.one_of(st.sampled_from(["X", "Y", "", "a:b", "é" * 70]), st.text(max_size=5)),
        "shape": st.lists(st.integers(-1, 3), max_size=3),
        "datatype": st.sampled_from(["FP32", "FP64", "INT8", "INT64", "UINT64", "BOOL", "FP16"]),
        "data": st.lists(VALUES, max_size=4),
    },
    optional={"parameters": st.just({}), "more": st.integers()},
)
BODY = st.fixed_dictionaries(
    {"inputs": st.lists(INPUT, min_size=1, max_size=3)},
    optional={"id": st.text(max_size=3), "outputs": st.just([])},
)


@given(BODY, st.data())
def test_both_ways_say_the_same(document: Any, data: st.DataObject) -> None:
    """A mutated request is read alike, or refused in the same words, with and without it."""
    body = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(0, 2))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(st.sampled_from(list(b'":,[]{}0123456789-.eE ')))
    text = bytes(body)

    short = described(text)
    with mock.patch.object(rest_plain, "decode", return_value=None):
        long = described(text)

    assert short == long or _both_nan(short, long)


def _both_nan(short: Any, long: Any) -> bool:
    with contextlib.suppress(Exception):
        return repr(short) == repr(long)
    return False
