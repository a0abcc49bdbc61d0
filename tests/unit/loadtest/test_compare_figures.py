"""What follows from a comparison's samples: ratios, aims, whether it failed."""

import pytest
import script_kit
from compare_kit import report, row, sample

figures = script_kit.module("compare_figures")


def verdict(made: object, words: str) -> object:
    """The verdict whose aim has these words."""
    [found] = [one for one in figures.verdicts(made) if words in one.words]
    return found


def test_a_ratio_is_to_the_floor_measured_right_before() -> None:
    """A slow round that slows both does not move it."""
    found = figures.over_floor(row("x", sample(1, 150, 100), sample(2, 330, 200)))

    assert (found.median, found.least, found.most) == pytest.approx((1.575, 1.5, 1.65))


def test_an_aim_is_judged_by_the_median() -> None:
    """Two rounds of three within the limit keep it."""
    rows = [row("floor", sample(1, 100), group="floor")]
    within = [sample(1, 140), sample(2, 145), sample(3, 190)]

    met = verdict(
        report(*rows, row("sluice-json-record", *within)), "request, HTTP JSON with record"
    )

    assert (met.met, met.found.median, met.found.most) == (True, 1.45, 1.9)


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    """Without its row, or the floor's, an aim has no verdict."""
    for made in (report(), report(row("sluice-json-record", sample(1, 100)))):
        assert {one.met for one in figures.verdicts(made)} == {None}


def test_latencies_are_compared_within_a_round() -> None:
    """A round in which the floor was not asked at the rate says nothing about it."""
    made = report(
        row("floor", sample(1, 100, p99=200.0), sample(2, 100), group="floor"),
        row("sluice-json-record", sample(1, 100, p99=500.0), sample(2, 100, p99=9000.0)),
    )

    found = verdict(made, "p99 at 1,000")

    assert (found.met, found.found.median, found.found.most) == (False, 2.5, 2.5)


def test_the_fullest_row_is_held_against_the_cheapest_of_others() -> None:
    """The floor and Sluice's own rows are no others; a bare framework is no serving system."""
    made = report(
        row("floor", sample(1, 30), group="floor"),
        row("sluice-json", sample(1, 50), group="sluice"),
        row("sluice-json-features", sample(1, 120), group="sluice"),
        row("slow", sample(1, 900)),
        row("uvicorn", sample(1, 96), group="uvicorn"),
        row("quick", sample(1, 160)),
    )

    other, system = verdict(made, "other server"), verdict(made, "serving system")

    assert (other.met, other.found.median) == (False, 1.25)
    assert "(the uvicorn)" in other.words
    assert (system.met, system.found.median) == (True, 0.75)
    assert "(the quick)" in system.words


@pytest.mark.parametrize(
    ("trouble", "failed"),
    [
        ("", False),
        ("not installed; `python -m loadtests.peers install x` does that", False),
        ("WRONG: [0.1] instead of [0.9]", True),
        ("did not start: ended with 1", True),
    ],
)
def test_only_a_server_that_is_not_installed_may_be_missing(trouble: str, failed: bool) -> None:
    """One that is wrong, or does not come up, fails the comparison."""
    assert figures.failed(report(row("x", trouble=trouble))) is failed
