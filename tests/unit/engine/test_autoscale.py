"""How many workers a load gets: up after a while, down to the crests, never to and fro."""

import itertools
import json
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engine.autoscale import Load, Scaling, decide, wanted

SCALING = Scaling(min=1, max=8, target_busy=0.5, target_in_flight=10, upscale_delay=2)


def run(scaling: Scaling, loads: Iterable[Load], step: float = 1.0) -> list[int]:
    """The number after each load, from `min` on; what is remembered travels as JSON."""
    current, memory, numbers = scaling.min, {}, []
    for index, load in enumerate(loads):
        current, memory = decide(load, scaling, current, 1e9 + index * step, memory)
        memory = json.loads(json.dumps(memory))
        numbers.append(current)
    return numbers


@pytest.mark.parametrize(
    ("busy", "in_flight", "current", "number"),
    [
        (0.5, 0, 1, 1),  # at the target
        (0.54, 0, 1, 1),  # within the tolerance
        (0.56, 0, 1, 2),
        (2.0, 0, 1, 4),
        (0.1, 35, 1, 4),  # requests wait although nobody is busy
        (100, 0, 1, 8),  # max
        (0, 0, 5, 1),  # min
        (1.9, 0, 4, 4),  # within the tolerance below
        (1.5, 0, 4, 4),  # three would be as busy as would make it four again
        (1.3, 0, 4, 3),
    ],
)
def test_the_wish_is_a_ratio_to_the_target(
    busy: float, in_flight: float, current: int, number: int
) -> None:
    """Whichever target asks for more, within bounds, with a tolerance."""
    assert wanted(Load(busy=busy, in_flight=in_flight), SCALING, current) == number


def test_up_waits_until_the_wish_has_held() -> None:
    """One second of load changes nothing; two do."""
    quiet, full = Load(busy=0.1), Load(busy=2.0)

    assert run(SCALING, [quiet, full, quiet, full, full, full, full]) == [1, 1, 1, 1, 1, 4, 4]


def test_down_goes_to_the_most_that_was_wished_for_lately() -> None:
    """A trough shorter than the window costs nothing."""
    waves = [Load(busy=2.0 if second % 30 < 5 else 0.1) for second in range(300)]
    numbers = run(SCALING, waves)

    assert set(numbers[10:]) == {4}


def test_idle_goes_back_to_the_least_after_the_window() -> None:
    """And not before."""
    loads = [Load(busy=2.0)] * 10 + [Load(busy=0.0)] * 200
    numbers = run(SCALING, loads)

    down = [index for index, number in enumerate(numbers) if number == 1 and index > 10]
    assert numbers[9] == 4
    assert 60 <= down[0] - 10 <= 75
    assert set(numbers[down[0] :]) == {1}


@pytest.mark.parametrize("seed", range(5))
def test_a_noisy_load_does_not_flap(seed: int) -> None:
    """A fifth of noise around a constant load: it settles, and stays."""
    chance = random.Random(seed)
    noisy = [chance.uniform(0.8, 1.2) * 1.7 for _ in range(1200)]
    averaged = [Load(busy=sum(noisy[i - 5 : i]) / 5) for i in range(5, len(noisy))]
    numbers = run(SCALING, averaged)

    changes = sum(a != b for a, b in itertools.pairwise(numbers[30:]))
    assert changes <= 1
    assert numbers[-1] in {4, 5}


def test_seldom_asked_or_often_it_decides_alike() -> None:
    """The controller asks ten times a second."""
    second = [Load(busy=0.1)] * 5 + [Load(busy=2.0)] * 20 + [Load(busy=0.1)] * 100
    tenth = [load for load in second for _ in range(10)]

    slow, fast = run(SCALING, second), run(SCALING, tenth, 0.1)[9::10]
    assert sum(a != b for a, b in zip(slow, fast, strict=True)) <= 2


@given(
    loads=st.lists(st.floats(0, 50), max_size=80),
    flights=st.floats(0, 500),
    least=st.integers(1, 5),
    more=st.integers(0, 10),
)
def test_never_outside_the_bounds(
    loads: list[float], flights: float, least: int, more: int
) -> None:
    """Whatever the load."""
    scaling = Scaling(min=least, max=least + more, upscale_delay=0, downscale_delay=3)
    numbers = run(scaling, [Load(busy=busy, in_flight=flights) for busy in loads])

    assert all(least <= number <= least + more for number in numbers)


@given(load=st.floats(0, 20), current=st.integers(1, 8))
def test_what_it_goes_to_it_stays_at(load: float, current: int) -> None:
    """The wish for a number of workers under a load is that number: no oscillation."""
    number = wanted(Load(busy=load), SCALING, current)

    assert wanted(Load(busy=load), SCALING, number) == number


def test_where_none_must_run_nobody_asking_means_none() -> None:
    """However much CPU a waiting process uses; and the first is started without delay."""
    lazy = Scaling(min=0, max=3, upscale_delay=10, downscale_delay=5)
    memory: dict[str, Any] = {}

    number, memory = decide(Load(busy=0.0, in_flight=0.0), lazy, 0, 0.0, memory)
    assert number == 0
    number, memory = decide(Load(busy=0.0, in_flight=0.2), lazy, 0, 1.0, memory)
    assert number == 1
    for second in range(2, 12):
        number, memory = decide(Load(busy=0.03, in_flight=0.0), lazy, number, second, memory)

    assert number == 0
