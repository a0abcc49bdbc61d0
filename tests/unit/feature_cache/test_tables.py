import gzip
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_cache.tables import Checked, TableFile, UnfitFile
from feature_cache.views import FeatureView, Field

NOW = 1_800_000_000_000
KINDS = ("float32", "float64", "int8", "int16", "int32", "int64", "bool", "string")
VIEW = FeatureView(
    view="v",
    entity={"id": "int64"},
    fields={kind: Field(type=kind, default="" if kind == "string" else 0) for kind in KINDS},  # type: ignore[arg-type]
)
NUMBER = FeatureView(view="n", entity={"id": "int64"}, fields={"n": Field(type="int32", default=0)})
ROW: dict[str, Any] = {
    "id": 1,
    "float32": 1.5,
    "float64": 2.5,
    "int8": -8,
    "int16": -16,
    "int32": -32,
    "int64": -(1 << 63),
    "bool": True,
    "string": "héllo",
}


def opened(path: Path, view: FeatureView = NUMBER, **more: Any) -> TableFile:
    """The file, with the time of the test."""
    return TableFile(path, view, **{"event_ms": NOW - 1, "now_ms": NOW, **more})


def parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    """A Parquet file of these columns."""
    pq.write_table(pa.table(dict(columns)), path)
    return path


def only(table: TableFile, first: int = 0) -> Checked:
    """The one batch of a small file."""
    [batch] = table.batches(first)
    return batch


def reasons(batch: Checked) -> dict[int, str]:
    """Why rows were rejected, by number."""
    return {reject.row: reject.reason for reject, _ in batch.rejects}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".tsv"])
def test_every_type_is_read_from_every_format(tmp_path: Path, suffix: str) -> None:
    """One row of all types, and one of nulls."""
    path = tmp_path / f"f{suffix}"
    if suffix == ".parquet":
        parquet(
            path, {name: [value, value if name == "id" else None] for name, value in ROW.items()}
        )
    else:
        mark = "\t" if suffix == ".tsv" else ","
        lines = [mark.join(ROW), mark.join(map(str, ROW.values())), mark.join(["2", *[""] * 8])]
        text = "\n".join(lines).encode()
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)

    batch = only(opened(path, VIEW))

    assert batch.rejects == []
    assert batch.part == 1.0
    rows = batch.rows
    assert {name: next(iter(values)) for name, values in rows.columns.items()} == {
        name: value for name, value in ROW.items() if name != "id"
    }
    assert all(mask.tolist() == [False, True] for mask in rows.nulls.values())
    assert rows.nulls.keys() == rows.columns.keys()
    assert rows.event_ms.tolist() == [NOW - 1, NOW - 1]


def test_a_quoted_empty_string_is_no_null(tmp_path: Path) -> None:
    """CSV can tell them apart, so they are."""
    view = FeatureView(view="t", entity={"id": "string"}, fields={"t": Field(type="string")})
    (tmp_path / "t.csv").write_text('id,t\na,""\nb,\n"with\nnewline","x,y"\n')

    rows = only(opened(tmp_path / "t.csv", view)).rows

    assert rows.entities == {"id": ["a", "b", "with\nnewline"]}
    assert rows.columns["t"] == ["", "", "x,y"]
    assert rows.nulls["t"].tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("values", "bad"),
    [
        (
            pa.array([1, 1 << 31, -(1 << 31) - 1, 5]),
            {1: "n is int32, and 2147483648 is none", 2: ""},
        ),
        (pa.array([1.0, 1.5, float("nan"), float("inf")]), {1: "and 1.5 is none", 2: "", 3: ""}),
        (pa.array([1, 2, 3, (1 << 64) - 1], pa.uint64()), {3: ""}),
        (pa.array(["1", "2"]).dictionary_encode(), None),
        (pa.array([True, False]), None),
    ],
)
def test_numbers_that_are_none_of_the_type_are_rejected_one_by_one(
    tmp_path: Path, values: Any, bad: dict[int, str] | None
) -> None:
    """Out of range or not whole: the row; of another family: the file."""
    path = parquet(tmp_path / "f.parquet", {"id": range(len(values)), "n": values})
    if bad is None:
        with pytest.raises(UnfitFile, match="and n is int32"):
            opened(path)
        return

    batch = only(opened(path))

    found = reasons(batch)
    assert found.keys() == bad.keys()
    assert all(bad[row] in found[row] for row in bad)
    assert len(batch.rows) == len(values) - len(bad)


def test_float32_takes_what_it_can_hold(tmp_path: Path) -> None:
    """Infinity and NaN are float32; 1e39 is not."""
    view = FeatureView(view="f", entity={"id": "int64"}, fields={"f": Field(type="float32")})
    values = [1e39, float("inf"), float("nan"), 0.1]
    path = parquet(tmp_path / "f.parquet", {"id": range(4), "f": values})

    batch = only(opened(path, view))

    assert reasons(batch) == {0: "f is float32, and 1e+39 is none"}
    assert batch.rows.columns["f"].dtype == np.float32


def test_text_that_is_no_number_is_rejected_with_the_text(tmp_path: Path) -> None:
    """Its neighbours are taken; spaces do no harm."""
    (tmp_path / "f.csv").write_text("id,n\n1, 7 \n2,seven\n3,\nx,9\n,9\n")

    batch = only(opened(tmp_path / "f.csv"))

    assert reasons(batch) == {
        1: "n is int32, and 'seven' is none",
        3: "id is int64, and 'x' is none",
        4: "no value for the key id",
    }
    assert batch.rows.columns["n"].tolist() == [7, 0]
    assert batch.rejects[0][1] == {"id": "2", "n": "seven"}


def test_broken_lines_are_rejected_and_counted_in(tmp_path: Path) -> None:
    """Numbers are the file's, so that they can be found there; nothing behind is lost."""
    (tmp_path / "f.csv").write_text("id,n\n1,1\n2\n3,x\n4,4,4\n5,5\n")

    table = opened(tmp_path / "f.csv")
    batch = only(table)

    assert reasons(batch) == {
        1: "1 columns, where the heading has 2",
        2: "n is int32, and 'x' is none",
        3: "3 columns, where the heading has 2",
    }
    assert batch.rows.entities == {"id": [1, 5]}
    assert (batch.first, batch.count) == (0, 5)
    again = only(table, first=2)
    assert (again.first, again.count, again.rows.entities) == (2, 3, {"id": [5]})
    assert reasons(again).keys() == {2, 3}


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """From any row of any batch; the parts add up to the whole."""
    count = 40_000
    path = parquet(tmp_path / "f.parquet", {"id": range(count), "n": range(count)})
    table = opened(path)
    assert table.rows == count

    for first in (0, 1, 16_383, 16_384, 39_999, 40_000):
        batches = list(table.batches(first))
        assert [one for batch in batches for one in batch.rows.entities["id"]] == list(
            range(first, count)
        )
        assert not batches or (batches[0].first, batches[-1].part) == (first, 1.0)


@pytest.mark.parametrize(
    ("times", "expected", "bad"),
    [
        (pa.array([NOW, None]), [NOW], {1: "no event_time"}),
        (pa.array([datetime(2026, 1, 2, tzinfo=UTC)]), [1_767_312_000_000], {}),
        (pa.array([1_767_312_000_000_000_000], pa.timestamp("ns")), [1_767_312_000_000], {}),
        (pa.array([20_455], pa.date32()), [1_767_312_000_000], {}),
        (
            pa.array(["2026-01-02", "2026-01-02T00:00:00+01:00"]),
            [1_767_312_000_000, 1_767_308_400_000],
            {},
        ),
        (pa.array(["1767312000000", "soon"]), [1_767_312_000_000], {1: "'soon' is neither"}),
        (pa.array([NOW + 90_000, -5, NOW]), [NOW], {0: "90 s in the future", 1: "before 1970"}),
    ],
)
def test_event_times_of_every_kind(
    tmp_path: Path, times: Any, expected: list[int], bad: dict[int, str]
) -> None:
    """Timestamps of any unit, dates, text and milliseconds mean the same moment."""
    columns = {"id": range(len(times)), "n": [1] * len(times), "event_time": times}

    table = opened(parquet(tmp_path / "f.parquet", columns))
    batch = only(table)

    assert table.has_event_times
    assert batch.rows.event_ms.tolist() == expected
    assert reasons(batch).keys() == bad.keys()
    assert all(words in reasons(batch)[row] for row, words in bad.items())


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"id": [1], "m": [1]}, {}, "has no n; `--column NAME=COLUMN` renames"),
        ({"id": [1], "n": ["x"]}, {}, "the column 'n' is string, and n is int32"),
        ({"id": [1.5], "n": [[1]]}, {}, "is list<element: int64>, and n is int32"),
        ({"id": [1], "n": [1]}, {"m": "n"}, "the view 'n' has no 'm'"),
        ({"id": [1], "n": [1]}, {"event_time": "t"}, "has no column 't'"),
        ({"id": [1], "n": [1], "event_time": [True]}, {}, "is bool, and event_time is time"),
    ],
)
def test_a_file_that_cannot_be_rows_of_the_view_is_refused_before_anything_is_read(
    tmp_path: Path, columns: Any, names: dict[str, str], message: str
) -> None:
    """With the column's name, and what to do."""
    with pytest.raises(UnfitFile, match=message):
        opened(parquet(tmp_path / "f.parquet", columns), names=names)


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    """Keys, fields and event times alike."""
    columns = {"who": [3], "count": [4], "when": [NOW - 7], "other": ["ignored"]}
    path = parquet(tmp_path / "f.parquet", columns)

    table = opened(path, names={"id": "who", "n": "count", "event_time": "when"})
    rows = only(table).rows

    assert rows.entities == {"id": [3]}
    assert rows.columns["n"].tolist() == [4]
    assert rows.event_ms.tolist() == [NOW - 7]


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PAR1 nonsense PAR1"])
def test_what_is_no_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    """And how CSV is told."""
    path = tmp_path / "f.parquet"
    path.write_bytes(content)

    with pytest.raises(UnfitFile, match=r"f\.parquet is no Parquet file, and CSV is known by"):
        opened(path)


def test_an_empty_csv_is_named(tmp_path: Path) -> None:
    """Not even a heading."""
    (tmp_path / "f.csv").write_bytes(b"")

    with pytest.raises(UnfitFile, match=r"f\.csv: Empty CSV file"):
        opened(tmp_path / "f.csv")


@given(values=st.lists(st.none() | st.integers(-(1 << 31), (1 << 31) - 1) | st.text(max_size=5)))
def test_csv_takes_exactly_the_numbers(tmp_path_factory: Any, values: list[Any]) -> None:
    """Whatever stands in a column, what is taken is what int() says, and the rest is rejected."""
    texts = ["" if value is None else str(value) for value in values]
    quoted = ['"' + text.replace('"', '""') + '"' if text else "" for text in texts]
    path = tmp_path_factory.mktemp("csv") / "f.csv"
    path.write_text(
        "id,n\n" + "".join(f"{at},{text}\n" for at, text in enumerate(quoted)), "utf-8", newline=""
    )
    plain = {at: int(text) for at, text in enumerate(texts) if text.isascii() and _whole(text)}

    batches = list(opened(path).batches())

    taken: dict[int, int] = {}
    for batch in batches:
        nulls = batch.rows.nulls.get("n", np.zeros(len(batch.rows), np.bool_))
        for row, number, null in zip(
            batch.rows.entities["id"], batch.rows.columns["n"], nulls, strict=True
        ):
            if not null:
                taken[int(row)] = int(number)
    assert plain.items() <= taken.items()
    assert {row for row in taken if row not in plain} <= {
        at for at, text in enumerate(texts) if text.strip()
    }


def _whole(text: str) -> bool:
    try:
        return str(int(text)) == text and -(1 << 31) <= int(text) < 1 << 31
    except ValueError:
        return False
