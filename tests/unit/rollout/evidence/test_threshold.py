"""A value that stays beyond a limit."""

import pytest

from serving.rollout.evidence.threshold import (
    Mark,
    Sustained,
    latest,
    marked,
    quantile,
    sustained,
)


def marks_of(*counts: tuple[int, int], least: int = 100) -> list[Mark]:
    """One look a second: events, units."""
    marks: list[Mark] = []
    for at, (events, units) in enumerate(counts):
        marks = marked(marks, Mark(float(at), events, units), least)
    return marks


def test_the_value_is_that_of_the_shortest_stretch_with_requests_enough() -> None:
    """What was long ago does not dilute it."""
    marks = marks_of((0, 0), (0, 10_000), (30, 10_060), (60, 10_120))

    assert latest(marks, 100) == pytest.approx(60 / 120)


def test_too_few_requests_have_no_value() -> None:
    """None, and none at all without looks."""
    assert latest(marks_of((0, 0), (9, 99)), 100) is None
    assert latest([], 100) is None


def test_looks_without_requests_are_not_kept() -> None:
    """A silent hour takes no memory."""
    assert len(marks_of((0, 0), (1, 10), (1, 10), (1, 10))) == 2


def test_marks_are_bounded_however_rare_requests_are() -> None:
    """A thousand looks with a request each and a stretch of a million: a few hundred marks."""
    marks = marks_of(*((0, count) for count in range(1000)), least=1_000_000)

    assert len(marks) <= 256
    assert (marks[0].units, marks[-1].units) == (0, 999)


def test_another_book_begins_anew() -> None:
    """Counts that went down are of another rollout."""
    assert marks_of((5, 500), (0, 10)) == [Mark(1.0, 0, 10)]


def test_a_breach_takes_as_long_as_it_says() -> None:
    """At the limit's time, not before, counted from the first look beyond."""
    held = Sustained()
    seen = []
    for now in (100.0, 130.0, 159.0, 160.0):
        held = sustained(held, beyond=True, now=now, seconds=60.0)
        seen.append(held.breached)

    assert seen == [False, False, False, True]


def test_one_look_within_begins_it_again() -> None:
    """Without a break, or not at all."""
    held = sustained(Sustained(), beyond=True, now=0.0, seconds=60.0)
    held = sustained(held, beyond=False, now=30.0, seconds=60.0)
    held = sustained(held, beyond=True, now=70.0, seconds=60.0)

    assert not held.breached
    assert held.since == 70.0


def test_a_look_without_a_value_changes_nothing() -> None:
    """Nothing to compare is neither good nor bad."""
    held = sustained(Sustained(), beyond=True, now=0.0, seconds=60.0)

    assert sustained(held, beyond=None, now=50.0, seconds=60.0) == held


def test_a_quantile_is_one_of_the_values() -> None:
    """The smallest that the share does not exceed; none of none."""
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.99) == 4.0
    assert quantile([7.0], 0.01) == 7.0
    assert quantile([], 0.5) is None
