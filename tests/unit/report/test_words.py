"""Numbers and times as people read them."""

import pytest

from serving.report.words import (
    clock,
    moment,
    number,
    percent,
    probability,
    short_time,
    span,
    tick,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"), (0.00041, "0.0004"), (0.0999, "0.0999"), (0.123456, "0.123"), (12.345, "12.3"),
        (1234567.8, "1,234,568"), (-0.0128, "\u22120.0128"), (-0.000001, "0.0000"),
    ],
)  # fmt: skip
def test_a_number_has_about_three_digits(value: float, words: str) -> None:
    """A minus is a minus, and there is none before a zero."""
    assert number(value) == words


@pytest.mark.parametrize(
    ("share", "words"), [(0, "0.0 %"), (0.5, "50.0 %"), (0.00004, "0.004 %"), (1, "100.0 %")]
)
def test_a_share_shows_that_it_is_not_nothing(share: float, words: str) -> None:
    """Rare is not never."""
    assert percent(share) == words


def test_a_tiny_probability_is_only_called_tiny() -> None:
    """Nobody can tell 1e-30 from 1e-300."""
    assert [probability(q) for q in (1e-30, 0.0123, 1.0)] == ["< 1e-06", "0.012", "1"]


def test_an_axis_tells_as_much_time_as_tells_ticks_apart() -> None:
    """Seconds in minutes, hours in a day, days in a month."""
    at = 86_400.0 * 31 + 3_723

    assert [clock(at, span) for span in (60, 7_200, 3 * 86_400, 30 * 86_400)] == [
        "01:02:03", "01:02", "Feb 1 01:02", "Feb 1",
    ]  # fmt: skip
    assert moment(at) == "1970-02-01 01:02:03Z"
    assert moment(at - 3) == "1970-02-01 01:02Z"


def test_a_tick_has_no_needless_digit() -> None:
    """0.01 and not 0.0100."""
    assert [tick(value) for value in (0.01, 2.0, -0.5)] == ["0.01", "2", "\u22120.5"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3 s"), (90, "1.5 min"), (3_600, "1 h"), (7 * 86_400, "7 d")]
)
def test_a_length_of_time_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    """As configuration files write it."""
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0"), (25e-6, "25 µs"), (0.0009999, "1 ms"), (0.00125, "1.25 ms"), (0.05, "50 ms"),
        (0.9996, "1 s"), (2.5, "2.5 s"), (1234.0, "1,234 s"),
    ],
)  # fmt: skip
def test_a_short_time_has_the_unit_that_fits(seconds: float, words: str) -> None:
    """Three digits are enough, and none is an exponent."""
    assert short_time(seconds) == words
