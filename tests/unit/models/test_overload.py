"""What a batcher still answers in time when too much is asked of it; in simulated time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from overload_kit import Arrival, Tally, poisson, simulate

RUN_SECONDS = 2.5e-3
WITHIN = 0.1
SPREAD, TAIL_SHARE, TAIL = 0.15, 0.005, 8.0
CAPACITY = 1 / (RUN_SECONDS * (1 + TAIL_SHARE * (TAIL - 1)))
"""Runs a second, one request each: lognormal times, and one in two hundred eight times as long."""


def runs(*, slower_from: float = 1e9, factor: float = 4.0) -> Callable[[float, int], float]:
    """How long runs take; from a second on, `factor` times as long."""
    random = np.random.default_rng(7)

    def seconds(now: float, rows: int) -> float:
        del rows
        took = RUN_SECONDS * float(np.exp(SPREAD * random.standard_normal() - SPREAD**2 / 2))
        took *= TAIL if random.random() < TAIL_SHARE else 1.0
        return took * (factor if now >= slower_from else 1.0)

    return seconds


def load(factor: float, seconds: float, **more: Any) -> list[Arrival]:
    """So many times what the model can do."""
    arrivals: list[Arrival] = poisson(factor * CAPACITY, seconds, WITHIN, seed=1, **more)
    return arrivals


def goodput(tally: Tally, seconds: float) -> float:
    """Answers in time, by what the model can do in these seconds."""
    return tally.count("good") / seconds / CAPACITY


@pytest.mark.parametrize("factor", [1.1, 2.0, 4.0])
def test_more_than_it_can_do_costs_no_goodput(factor: float) -> None:
    """Nearly all that the model can do is answered in time, however much is asked of it."""
    tally = simulate(load(factor, 6), runs()).among(since=1)

    assert goodput(tally, 5) > 0.95


def test_who_is_not_answered_in_time_is_told_at_once() -> None:
    """Of a hundred that get no answer ninety-nine are refused when they come, and none waits."""
    tally = simulate(load(4, 6), runs()).among(since=1)
    turned_away = [one for one in tally.ended if one.how != "good"]

    assert np.quantile([one.took for one in turned_away], 0.99) < 0.005
    assert tally.count("expired") < 0.001 * len(turned_away)


def test_a_spike_leaves_nothing_behind() -> None:
    """A second after four times too much has ended, half load is answered as if nothing had been.

    What is left from the spike is at most 60 % of a deadline's worth of work.
    """
    spike = [one for one in load(4, 4) if one.at >= 1]
    before_and_after = [one for one in load(0.5, 8) if one.at < 1 or one.at >= 4]

    tally = simulate(spike + before_and_after, runs()).among(since=4.1)

    assert tally.share("good") > 0.99


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_a_model_four_times_slower_is_believed_soon(factor: float) -> None:
    """Of what it can do then it does 85 % within a second, and 90 % later on."""
    tally = simulate(load(factor, 9), runs(slower_from=3))

    assert goodput(tally.among(since=3, until=4), 1) > 0.75 / 4
    assert goodput(tally.among(since=4), 5) > 0.9 / 4


def test_a_model_that_recovers_is_believed_soon() -> None:
    """When it is as fast again as it was, so are its answers."""
    slow = runs(slower_from=1)
    fast = runs()
    tally = simulate(load(2, 7), lambda now, rows: (slow if now < 3 else fast)(now, rows))

    assert goodput(tally.among(since=4), 3) > 0.9


@pytest.mark.parametrize("factor", [1.2, 4.0])
def test_neither_much_time_nor_little_shuts_the_other_out(factor: float) -> None:
    """Of requests with 30 ms and with 300 ms both are answered, and still all that is possible.

    Judged by the work of everybody before it, a request with little time would never be taken
    where those with much time fill the queue; let before them always, it would take all.
    """
    mixed = [
        *poisson(factor * CAPACITY / 2, 6, 0.03, seed=1, kind="short"),
        *poisson(factor * CAPACITY / 2, 6, 0.3, seed=2, kind="long"),
    ]

    tally = simulate(mixed, runs()).among(since=1)

    good = tally.count("good")
    assert goodput(tally, 5) > 0.95
    for kind in ("short", "long"):
        assert tally.among(kind=kind).count("good") > good / 8


def test_who_is_overtaken_is_still_answered_in_time() -> None:
    """Those with much time who were taken are not given up for those with little."""
    mixed = [
        *poisson(3.5 * CAPACITY, 6, 0.03, seed=1, kind="short"),
        *poisson(0.5 * CAPACITY, 6, 0.3, seed=2, kind="long"),
    ]

    tally = simulate(mixed, runs()).among(since=1, kind="long")

    assert tally.count("expired") + tally.count("late") <= 0.01 * tally.count("good")
