from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_cache.codec import (
    TOMBSTONE,
    Corrupt,
    Extractor,
    Layout,
    event_time,
    pack,
    schema_of,
    tombstone,
)

FIELDS = [
    ("a", "float32"),
    ("b", "int64"),
    ("c", "float64"),
    ("d", "bool"),
    ("e", "int8"),
    ("f", "string"),
    ("g", "int32"),
    ("h", "int16"),
    ("i", "string"),
]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float32": st.floats(width=32, allow_nan=False),
    "float64": st.floats(allow_nan=False),
    "int8": st.integers(-128, 127),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "bool": st.booleans(),
    "string": st.text(max_size=8).map(str.encode),
}
layouts = st.lists(
    st.tuples(st.text(min_size=1, max_size=3), st.sampled_from(sorted(VALUES))),
    min_size=1,
    max_size=12,
    unique_by=lambda field: field[0],
)


def one(layout: Layout, row: dict[str, Any], event_ms: int = 5, null: str = "") -> bytes:
    """One row as a blob."""
    nulls = {null: np.array([True])} if null else None
    [blob] = pack(layout, {k: [v] for k, v in row.items()}, np.array([event_ms]), nulls)
    return blob


@given(st.data(), layouts)
def test_what_is_packed_is_read_back(data: st.DataObject, fields: list[tuple[str, str]]) -> None:
    """Any layout, any values, any subset of fields in any order, one by one and together."""
    layout = Layout(fields)
    rows = data.draw(
        st.lists(st.fixed_dictionaries({n: VALUES[k] for n, k in fields}), min_size=1, max_size=4)
    )
    times = np.arange(len(rows), dtype=np.int64) + 7
    wanted = data.draw(st.permutations(fields))[: data.draw(st.integers(1, len(fields)))]

    blobs = pack(layout, {n: [row[n] for row in rows] for n, _ in fields}, times)
    extractor = Extractor(layout, wanted, np.dtype(object))

    expected = [[row[name] for name, _ in wanted] for row in rows]
    assert [extractor.one(blob).tolist() for blob in blobs] == expected
    assert extractor.many(blobs).tolist() == expected
    assert [event_time(blob) for blob in blobs] == times.tolist()
    assert {schema_of(blob) for blob in blobs} == {(0, layout.schema_id)}


def test_numbers_become_one_dtype_in_the_order_wanted() -> None:
    """Groups of several types, gathered and converted, one row or many."""
    numbers = [field for field in FIELDS if field[1] != "string"]
    layout = Layout(numbers)
    row = {"a": 0.5, "b": 2, "c": 3.0, "d": True, "e": -5, "g": 6, "h": 7}
    extractor = Extractor(layout, numbers[::-1], np.dtype("<f4"))

    assert extractor.one(one(layout, row)).tolist() == [7, 6, -5, 1, 3, 2, 0.5]
    assert extractor.many([one(layout, row)] * 2).tolist() == [[7, 6, -5, 1, 3, 2, 0.5]] * 2


def test_a_row_of_floats_is_read_where_it_lies() -> None:
    """No copy for the common case."""
    layout = Layout([("x", "float32"), ("y", "float32")])
    blob = one(layout, {"x": 1.5, "y": 2.5})

    row = Extractor(layout, layout.fields, np.dtype("<f4")).one(blob)

    assert row.tolist() == [1.5, 2.5]
    assert not row.flags.owndata


@pytest.mark.parametrize("name", [name for name, _ in FIELDS])
def test_a_null_is_told_from_every_value(name: str) -> None:
    """By its bit, whatever bytes stand there."""
    layout = Layout(FIELDS)
    row = {n: (b"x" if k == "string" else 1) for n, k in FIELDS}
    extractor = Extractor(layout, FIELDS, np.dtype(object))

    blob = one(layout, row, null=name)

    assert extractor.nulls(blob) == ([n for n, _ in FIELDS].index(name),)
    assert extractor.nulls(one(layout, row)) == ()


def test_nan_is_a_value_and_no_null() -> None:
    """A model may want NaN."""
    layout = Layout([("x", "float32")])
    blob = one(layout, {"x": float("nan")})
    extractor = Extractor(layout, layout.fields, np.dtype("<f4"))

    assert np.isnan(extractor.one(blob)).all()
    assert extractor.nulls(blob) == ()


def test_large_integers_keep_every_bit() -> None:
    """2⁵³ + 1 is no float64."""
    layout = Layout([("id", "int64")])

    row = Extractor(layout, layout.fields, np.dtype("<i8")).one(one(layout, {"id": 2**53 + 1}))

    assert row.tolist() == [2**53 + 1]


def test_a_field_the_blob_does_not_have_is_absent_not_guessed() -> None:
    """Neither one that was added later, nor one whose type has changed."""
    old = Layout([("x", "float32"), ("y", "int32")])
    extractor = Extractor(
        old, [("new", "float32"), ("x", "float32"), ("y", "int64")], np.dtype("<f4")
    )

    assert extractor.absent == (0, 2)
    assert extractor.one(one(old, {"x": 1.5, "y": 3})).tolist() == [0, 1.5, 0]


def test_field_lists_that_differ_in_anything_have_other_ids() -> None:
    """Name, type or order: the bytes would mean something else."""
    lists = [
        [("x", "float32"), ("y", "float32")],
        [("y", "float32"), ("x", "float32")],
        [("x", "float32"), ("y", "int32")],
        [("x", "float32")],
        [("x", "float32"), ("z", "float32")],
    ]

    assert len({Layout(fields).schema_id for fields in lists}) == len(lists)


def test_a_described_layout_is_the_same_layout() -> None:
    """What a reader finds in the store is what the writer used."""
    layout = Layout(FIELDS)

    assert Layout.parse(layout.describe()).schema_id == layout.schema_id


@pytest.mark.parametrize("text", [b"", b"{}", b'[["x"]]', b'[["x","float128"]]', b"[" * 9999])
def test_a_field_list_nobody_can_read_is_refused(text: bytes) -> None:
    """It is data from outside."""
    with pytest.raises(Corrupt):
        Layout.parse(text)


@pytest.mark.parametrize("size", range(0, 60, 7))
def test_a_blob_cut_anywhere_is_corrupt(size: int) -> None:
    """Nothing is read behind its end."""
    layout = Layout(FIELDS)
    row = {n: (b"text" if k == "string" else 1) for n, k in FIELDS}
    blob = one(layout, row)
    extractor = Extractor(layout, FIELDS, np.dtype(object))

    with pytest.raises(Corrupt):
        extractor.one(blob[: len(blob) - 1 - size])
    with pytest.raises(Corrupt):
        extractor.one(blob + b"\0")


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_called_corrupt(data: bytes) -> None:
    """Never another exception."""
    layout = Layout(FIELDS)
    try:
        schema_of(data)
        Extractor(layout, FIELDS, np.dtype(object)).one(data)
    except Corrupt:
        pass


def test_blobs_of_another_length_are_refused_together_too() -> None:
    """One wrong blob must not shift the others."""
    layout = Layout([("x", "float32"), ("y", "int32")])
    blob = one(layout, {"x": 1, "y": 1})

    with pytest.raises(Corrupt):
        Extractor(layout, layout.fields, np.dtype("<f4")).many([blob, blob + b"\0" * 4])


@given(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=6))
def test_event_times_compare_as_bytes(times: list[int]) -> None:
    """The store compares eight bytes; 255 must come before 256."""
    layout = Layout([("x", "float32")])
    blobs = pack(layout, {"x": [0.0] * len(times)}, np.array(times, np.int64))

    assert sorted(blob[8:16] for blob in blobs) == [
        time.to_bytes(8, "big") for time in sorted(times)
    ]


def test_a_tombstone_is_marked_and_dated() -> None:
    """It holds nothing else."""
    blob = tombstone(77)

    assert schema_of(blob)[0] & TOMBSTONE
    assert event_time(blob) == 77


def test_what_cannot_be_stored_is_refused() -> None:
    """A time before 1970, a string of over a megabyte."""
    with pytest.raises(ValueError, match="1970"):
        one(Layout([("x", "float32")]), {"x": 1}, event_ms=-1)
    with pytest.raises(ValueError, match="1 MiB"):
        one(Layout([("s", "string")]), {"s": "x" * ((1 << 20) + 1)})
