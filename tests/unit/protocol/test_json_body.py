"""Repeated keys, nesting and memory: what orjson does not look at."""

from typing import Any

import orjson
import pytest

from serving.errors import InvalidRequest
from serving.protocol import json_body, rest
from serving.protocol.tensors import TensorLimits

LIMITS = TensorLimits()
INPUT = '{"name":"x","shape":[1],"datatype":"FP32","data":[1]}'


def decode(text: str, limits: TensorLimits = LIMITS) -> object:
    """Decode an all-JSON body."""
    return rest.decode_infer(text.encode(), None, model="m", version="", limits=limits)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"inputs":[%s],"inputs":[%s]}', "inputs"),
        ('{"id":"a","id":"b","inputs":[%s]}', "id"),
        ('{"parameters":{},"parameters":{},"inputs":[%s]}', "parameters"),
        ('{"parameters":{"timeout":1,"timeout":2},"inputs":[%s]}', "timeout"),
        ('{"inputs":[{"name":"x","name":"y","shape":[1],"datatype":"FP32","data":[1]}]}', "name"),
        (
            '{"inputs":[{"name":"x","shape":[9],"shape":[1],"datatype":"FP32","data":[1]}]}',
            "shape",
        ),
        (
            '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[2],"data":[1]}]}',
            "data",
        ),
        ('{"outputs":[{"name":"a","name":"b"}],"inputs":[%s]}', "name"),
        ('{"outputs":[],"outputs":[],"inputs":[%s]}', "outputs"),
        ('{"extra":{"a":1,"a":2},"inputs":[%s]}', "a"),
        ('{"extra":[{"b":{"c":1,"c":2}}],"inputs":[%s]}', "c"),
        ('{"extra":1,"extra":2,"inputs":[%s]}', "extra"),
        ('{"i\\u0064":"a","id":"b","inputs":[%s]}', "id"),
        # Colons and quotes inside strings neither hide a repeated key nor look like one.
        ('{"id":"a:b\\":\\\\","id":"b","inputs":[%s]}', "id"),
    ],
)
def test_a_repeated_key_is_refused(text: str, key: str) -> None:
    """The parser would silently keep the last; two readers of a request must not differ."""
    with pytest.raises(InvalidRequest, match=f"the key '{key}' twice"):
        decode(text.replace("%s", INPUT))


@pytest.mark.parametrize(
    "text",
    [
        '{"id":"a:b:c","inputs":[%s]}',
        '{"id":"\\"x\\":","inputs":[%s]}',
        '{"id":"\\\\","note":":","inputs":[%s]}',
        '{"id":"\\\\\\":\\\\","inputs":[%s]}',
        '{"id":"{[:","inputs":[%s]}',
        '{"extra":{"a":{"a":{"a":":"}}},"inputs":[%s]}',
        '{"extra":[{"a":1},{"a":2}],"inputs":[%s]}',
        '{"parameters":{"u:r":"http://x"},"inputs":[%s]}',
        '{ "inputs" : [ %s ] , "id" : "" }',
        '{"outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":true}}],"inputs":[%s]}',
        '{"":"","inputs":[%s]}',
        '{"é:\\u003a":"\\u003a","inputs":[%s]}',
    ],
)
def test_colons_in_strings_are_no_repeated_keys(text: str) -> None:
    """Only colons outside strings count."""
    assert decode(text.replace("%s", INPUT))


def test_a_repeated_key_is_found_in_a_long_body() -> None:
    """Long bodies are counted with numpy; the result is the same."""
    data = [0.5] * 2000
    body = orjson.dumps(
        {"inputs": [{"name": "x", "shape": [2000], "datatype": "FP32", "data": data}]}
    ).decode()
    assert len(body) > 4096
    assert decode(body)

    with pytest.raises(InvalidRequest, match="the key 'id' twice"):
        decode(body.replace('{"inputs"', '{"id":"","id":"","inputs"'))


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    """A value of that many levels."""
    return opening * levels + ("1" if opening != "[" else "") + closing * levels


@pytest.mark.parametrize("limit", [4, 16, 128])
@pytest.mark.parametrize(
    ("template", "around"),
    [
        ('{"extra":%v,"inputs":[%s]}', 1),
        ('{"inputs":[{"extra":%v,"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}', 3),
        ('{"inputs":[%s],"outputs":[{"name":"y","extra":%v}]}', 3),
    ],
)
@pytest.mark.parametrize("signs", [("[", "]"), ('{"k":', "}")])
def test_nesting_is_bounded_exactly(
    limit: int, template: str, around: int, signs: tuple[str, str]
) -> None:
    """Values under unknown keys are tolerated down to the limit and not a level deeper."""
    limits = TensorLimits(max_json_depth=limit)
    text = template.replace("%s", INPUT)
    assert decode(text.replace("%v", nested(limit - around, *signs)), limits)

    with pytest.raises(InvalidRequest, match=f"deeper than {limit} levels"):
        decode(text.replace("%v", nested(limit - around + 1, *signs)), limits)


@pytest.mark.parametrize("depth", [17, 100, 1000, 1025, 10_000, 1_000_000])
@pytest.mark.parametrize("key", ["id", "inputs", "parameters", "outputs", "extra"])
def test_any_depth_is_refused_everywhere(key: str, depth: int) -> None:
    """From just too deep to a million levels: an InvalidRequest, never a RecursionError."""
    fields = {"inputs": f"[{INPUT}]"} | {key: nested(depth)}
    text = "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"

    with pytest.raises(InvalidRequest):
        decode(text)


@pytest.mark.parametrize("depth", [17, 1000, 100_000])
def test_data_is_no_deeper_than_its_shape(depth: int) -> None:
    """Nesting in data ends where the shape does."""
    text = '{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + nested(depth) + "}]}"

    with pytest.raises(InvalidRequest, match="nest"):
        decode(text)


@pytest.mark.parametrize(
    ("item", "count"), [("[]", 1_100_000), ("{}", 66_000), ('{"a":[]}', 66_000)]
)
def test_a_flood_of_containers_is_refused_before_it_is_parsed(item: str, count: int) -> None:
    """Three bytes of text would become 72 bytes of list or 232 of dictionary."""
    text = '{"inputs":[' + ",".join([item] * count) + "]}"

    with pytest.raises(InvalidRequest, match=r"arrays or .* objects"):
        json_body.parse(text.encode(), LIMITS)


def test_brackets_in_strings_are_no_containers() -> None:
    """A long text of brackets is an ordinary string."""
    text = '{"name":"' + "{[" * 1_200_000 + '"}'

    assert json_body.parse(text.encode(), LIMITS)["name"].startswith("{[")


def test_a_large_nested_batch_is_served() -> None:
    """The bound on arrays leaves room for a batch of single values, each in its own row."""
    rows: list[Any] = [[0.5]] * 200_000
    body = orjson.dumps(
        {"inputs": [{"name": "x", "shape": [200_000, 1], "datatype": "FP32", "data": rows}]}
    )

    request = rest.decode_infer(body, None, model="m", version="", limits=LIMITS)

    assert request.inputs[0].data.shape == (200_000, 1)
