"""The benchmark in small: rates that a broken test would not have, with room for noise.

Seeds are fixed, so nothing here is random; the room is for other versions of numpy and of the
model's runtime. `loadtests/drift_rates.py` prints the same with intervals.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LOADTESTS = Path(__file__).parents[3] / "loadtests"


@pytest.fixture(scope="module")
def rates() -> Iterator[ModuleType]:
    """The benchmark, as a module."""
    before = list(sys.path)
    sys.path.insert(0, str(LOADTESTS))
    import drift_rates

    yield drift_rates
    sys.path[:] = before
    for name in ("drift_rates", "drift_windows", "drift_harm", "census"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def world(rates: ModuleType) -> Any:
    """The demo's people with their scores."""
    return rates.score(rates.census.DATA)


def hits(rates: ModuleType, world: Any, case: Any, n: int, windows: int) -> int:
    """Windows in which the test as shipped names a column."""
    return sum(one.ours for one in rates.trials(world, case, n, windows, ("ours",)))


@pytest.mark.parametrize("n", [100, 1000])
def test_hardly_any_report_is_a_false_alarm(rates: ModuleType, world: Any, n: int) -> None:
    """At most 4 of 100; 1 is the rate asked for, and 5 would have a chance of 0.3 %."""
    assert hits(rates, world, rates.ALARMS[0], n, 100) <= 4


def test_rows_that_come_together_are_no_drift(rates: ModuleType, world: Any) -> None:
    """Runs of 50 neighbours: as if independent, a quarter of the reports would be false."""
    verdicts = list(rates.trials(world, rates.TRAFFIC[2], 1000, 60))

    assert sum(one.ours for one in verdicts) <= 4
    assert sum(one.independent for one in verdicts) >= 6


def test_a_person_asked_about_five_times_is_no_drift(rates: ModuleType, world: Any) -> None:
    """A fifth of the rows says anything."""
    assert hits(rates, world, rates.TRAFFIC[3], 1000, 60) <= 4


def test_regulars_are_no_drift_once_past_windows_are_known(rates: ModuleType, world: Any) -> None:
    """What no window shows by itself, those before it do."""
    assert hits(rates, world, rates.TRAFFIC[6], 1000, 30) <= 3


def test_nor_once_some_hours_have_gone_by(rates: ModuleType, world: Any) -> None:
    """A day of windows before tells the same, without a log."""
    assert hits(rates, world, rates.TRAFFIC[8], 1000, 30) <= 3


@pytest.mark.parametrize(
    ("case", "n", "least"),
    [(0, 100, 52), (2, 500, 58), (3, 200, 58), (4, 5000, 58)],
    ids=["nulls", "new category", "months", "2018"],
)
def test_what_changed_is_seen(rates: ModuleType, world: Any, case: int, n: int, least: int) -> None:
    """Out of 60 windows."""
    assert hits(rates, world, rates.POWER[case], n, 60) >= least


def test_fixed_thresholds_are_wrong_both_ways(rates: ModuleType, world: Any) -> None:
    """Always alarmed by small windows, never by a real shift in large ones."""
    small = list(rates.trials(world, rates.ALARMS[0], 100, 20))
    large = list(rates.trials(world, rates.POWER[4], 5000, 20))

    assert all(one.psi and one.js for one in small)
    assert not any(one.psi or one.js for one in large)


@pytest.mark.parametrize("name", ["drift_rates", "drift_harm"])
def test_the_benchmarks_say_how_they_are_used(name: str) -> None:
    """`--help` shows a command to copy."""
    done = subprocess.run(
        [sys.executable, LOADTESTS / f"{name}.py", "--help"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert f"python loadtests/{name}.py" in done.stdout


def test_harm_asks_for_a_training_and_drift_does_not(rates: ModuleType, world: Any) -> None:
    """Four years of drift without harm, then a tenth of the labels turned over."""
    del rates
    import drift_harm

    seen = dict(drift_harm.years(world))

    assert all(seen[year].triggers == 0 for year in ("2015, others", "2016", "2017", "2018"))
    assert seen["2018"].drifting == seen["2018"].windows
    turned = seen["2018, 10 % of labels turned"]
    assert turned.triggers == turned.windows
    assert turned.asked == 1, "then the cooldown holds"
