"""The file of a reference."""

import json
from typing import Any

import pytest

from serving.config.frozen_bins import (
    FrozenColumn,
    Reference,
    decode_reference,
    encode_reference,
)
from serving.errors import InvalidConfig

AGE = FrozenColumn(type="float", kind="numeric", edges=[0.0, 9.5, 20.0], counts=[1, 0, 0, 0, 4, 5])
SEX = FrozenColumn(
    type="integer", kind="categorical", values=[2, 1], counts=[0, 0, 0, 6, 4], overdispersion=1.5
)
TOWN = FrozenColumn(type="string", kind="frequent", values=["Ayr"], counts=[0, 0, 3, 7])
REFERENCE = Reference(
    model="m",
    digests={"v1": "0" * 64},
    rows=10,
    created="2026-01-01T00:00:00Z",
    source="ten people",
    columns={"age": AGE, "sex": SEX, "town": TOWN},
    statuses={"person": {"OK": 9, "NOT_FOUND|DEFAULTED": 1}},
)


def broken(**changes: Any) -> bytes:
    """The file with other keys in its column `age`."""
    document = json.loads(encode_reference(REFERENCE))
    document["columns"]["age"] |= changes
    return json.dumps(document).encode()


def refusal(data: bytes) -> str:
    """Why a file is refused."""
    with pytest.raises(InvalidConfig) as caught:
        decode_reference(data)
    return caught.value.message


def test_what_is_written_is_read() -> None:
    """Every part of it."""
    assert decode_reference(encode_reference(REFERENCE)) == REFERENCE


def test_the_file_is_json_with_a_column_a_line() -> None:
    """So that a change of one column is a change of one line."""
    text = encode_reference(REFERENCE).decode()

    assert list(json.loads(text)["columns"]) == ["age", "sex", "town"]
    assert sum('"counts"' in line for line in text.splitlines()) == 3


def test_bins_have_names_that_people_read() -> None:
    """Special ones first."""
    assert AGE.names == ["missing", "nonfinite", "below", "above", "0 … <9.5", "9.5 … 20"]
    assert SEX.names == ["missing", "nonfinite", "new", "2", "1"]
    assert TOWN.names == ["missing", "nonfinite", "other", "Ayr"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "text"}, "column `age`: `type`: Invalid enum value 'text'"),
        ({"type": "string"}, "column `age`: text cannot be `numeric`"),
        ({"edges": [0, "x", 20]}, "column `age`: `edges[1]`: Expected `float`, got `str`"),
        ({"edges": [0, 20, 10]}, "column `age`: `edges` must ascend"),
        ({"edges": [0]}, "column `age`: `edges` must be two finite numbers or more"),
        ({"counts": [1, 9]}, "column `age`: `counts` has 2 numbers for 6 bins"),
        ({"counts": [1, 0, 0, 0, 4, -5]}, "column `age`: `counts[5]`: Expected `int` >= 0"),
        ({"counts": [1, 0, 0, 0, 4, 6]}, "`counts` sums to 11, but `rows` is 10"),
        ({"overdispersion": 0.5}, "column `age`: `overdispersion`: Expected `float` >= 1.0"),
        ({"color": "red"}, "column `age`: Object contains unknown field `color`"),
        (
            {"kind": "categorical", "values": [1, "a"], "counts": [0, 0, 0, 5, 5]},
            "column `age`: `values` holds 'a', but `type` is `float`",
        ),
        (
            {"kind": "categorical", "values": [1, 1], "counts": [0, 0, 0, 5, 5]},
            "column `age`: `values` names one twice",
        ),
    ],
)
def test_a_bad_column_is_named_with_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    """Whoever wrote the file by hand finds the place."""
    assert words in refusal(broken(**changes))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "it is no JSON document"),
        (b"\x80abc", "it is no JSON document"),
        (b'{"columns": {"a": ' + b"[" * 100_000, "it is no JSON document"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `model`"),
        (encode_reference(REFERENCE).replace(b'"format": 1', b'"format": 2'), "`format`"),
    ],
)
def test_a_file_that_is_no_reference_is_refused(data: bytes, words: str) -> None:
    """With one line, whatever it holds."""
    assert words in refusal(data)


def test_a_reference_without_columns_is_refused() -> None:
    """It would call nothing drift."""
    document = json.loads(encode_reference(REFERENCE)) | {"columns": {}}

    assert "it has no columns" in refusal(json.dumps(document).encode())
