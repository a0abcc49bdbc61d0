import pytest

from serving.cli.status_tables import age, memory


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_661, "1 h 1 min"),
        (3_601, "1 h 1 s"),
        (190_000, "2 d 4 h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    """Nobody needs the seconds of a week; a clock that went back shows nothing negative."""
    assert age(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(None, "–"), (0, "0 MiB"), (150 << 20, "150 MiB")])
def test_memory_is_told_in_mebibytes(size: int | None, words: str) -> None:
    """A process that is not there holds none that could be told."""
    assert memory(size) == words
