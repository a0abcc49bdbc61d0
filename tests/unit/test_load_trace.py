"""Loads that are read, and loads that are made up."""

import json
from pathlib import Path

import pytest

from serving.load_trace import SHAPES, InvalidTrace, LoadTrace, Point, read_trace, shape


def read(tmp_path: Path, content: str) -> LoadTrace:
    """What a file with this content is."""
    file = tmp_path / "trace"
    file.write_text(content)
    return read_trace(file)


def test_a_table(tmp_path: Path) -> None:
    """From the first point on, the last one as long as the one before."""
    trace = read(tmp_path, "\ufeffrps, Seconds,note\n5,100,x\n7,110,y\n\n0,130,z\n")

    assert trace == LoadTrace((Point(0, 5), Point(10, 7), Point(30, 0)), 50)
    assert list(trace.rates(10)) == [5, 7, 7, 0, 0]
    assert trace.requests == 5 * 10 + 7 * 20
    assert trace.peak == 7


def test_an_answer_of_prometheus(tmp_path: Path) -> None:
    """Several series are added up; NaN is nothing."""
    series = [
        {"metric": {"a": "1"}, "values": [[1000, "1.5"], [1015, "2"]]},
        {"metric": {"a": "2"}, "values": [[1015, "NaN"], [1030, "4"]]},
    ]
    answer = {"status": "success", "data": {"resultType": "matrix", "result": series}}

    trace = read(tmp_path, json.dumps(answer))

    assert trace == LoadTrace((Point(0, 1.5), Point(15, 2), Point(30, 4)), 45)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "expected a header with the columns `seconds` and `rps`, found nothing"),
        ("time,rps\n1,2\n", "found time, rps"),
        ("seconds,rps\n", "no points"),
        ("seconds,rps\n1,2\n2,many\n", "line 3: expected numbers, found ['2', 'many']"),
        ("seconds,rps\n1\n", "line 2: expected numbers"),
        ("seconds,rps\n1,2\n1,3\n", "point 2: 1 seconds is not after 1"),
        ("seconds,rps\n1,-2\n", "point 1: 1 seconds, -2 requests a second"),
        ("seconds,rps\n1,nan\n", "point 1"),
        ("seconds,rps\n1,inf\n", "point 1"),
        ("{", "query_range"),
        ('{"data": {}}', "query_range"),
        ('{"data": {"result": [{"values": [[1, "x"]]}]}}', "query_range"),
        ('{"data": {"result": []}}', "no points"),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, content: str, words: str) -> None:
    """With the file, and where in it."""
    with pytest.raises(InvalidTrace) as raised:
        read(tmp_path, content)

    assert str(tmp_path / "trace") in raised.value.message
    assert words in raised.value.message


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    """The system's own reason."""
    with pytest.raises(InvalidTrace, match="No such file"):
        read_trace(tmp_path / "nothing")
    (tmp_path / "model").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidTrace, match="not a text file"):
        read_trace(tmp_path / "model")


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_stays_between_its_bounds(name: str) -> None:
    """And touches its peak, or comes near it."""
    trace = shape(name, low=10, peak=100, seconds=300)

    rates = list(trace.rates(1))
    assert len(rates) == 300
    assert min(rates) >= 10
    assert 95 <= trace.peak <= 100
    assert shape(name, low=10, peak=100, seconds=300) == trace


def test_an_unknown_shape() -> None:
    """Names those there are."""
    with pytest.raises(InvalidTrace, match="no shape `zigzag`; there is steady"):
        shape("zigzag", low=1, peak=2, seconds=3)
