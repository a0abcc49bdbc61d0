"""The change detector."""

import json
import math

import msgspec
import numpy as np
import pytest

from serving.drift.changes import Adwin, AdwinState, Change


def errors(seed: int, *parts: tuple[int, float]) -> list[float]:
    """A stream of errors: so many labels at each rate."""
    chance = np.random.default_rng(seed)
    return [float(one) for number, rate in parts for one in chance.random(number) < rate]


def changes(adwin: Adwin, values: list[float]) -> list[tuple[int, Change]]:
    """Where changes were seen."""
    return [
        (position, change)
        for position, value in enumerate(values)
        if (change := adwin.update(value)) is not None
    ]


def test_a_steady_stream_raises_no_alarm() -> None:
    """Twenty thousand labels at one rate."""
    assert changes(Adwin(), errors(1, (20_000, 0.17))) == []


def test_a_rise_is_seen_with_both_means() -> None:
    """From 10 % to 30 % within a few hundred labels, and which way it went."""
    seen = changes(Adwin(), errors(2, (5000, 0.1), (2000, 0.3)))

    first, change = seen[0]
    assert 5000 <= first < 5500
    assert change.grew
    assert change.before == pytest.approx(0.1, abs=0.05)


def test_after_a_change_the_mean_is_the_new_one() -> None:
    """The old part of the window is gone."""
    adwin = Adwin()
    changes(adwin, errors(3, (5000, 0.1), (5000, 0.4)))

    assert adwin.mean == pytest.approx(0.4, abs=0.03)
    assert adwin.width <= 6000


def test_an_improvement_is_a_change_that_did_not_grow() -> None:
    """Only growth is harm; the caller asks."""
    [(_, change), *_] = changes(Adwin(), errors(4, (5000, 0.4), (3000, 0.1)))

    assert not change.grew


def test_a_stream_goes_on_where_it_was_saved() -> None:
    """Through JSON, with the same alarms as without a restart."""
    values = errors(5, (3000, 0.1), (1500, 0.3))
    whole = changes(Adwin(), values)
    adwin = Adwin()
    changes(adwin, values[:2500])

    saved = msgspec.json.encode(adwin.state)
    resumed = Adwin.resume(msgspec.json.decode(saved, type=AdwinState))

    assert [at + 2500 for at, _ in changes(resumed, values[2500:])] == [at for at, _ in whole]
    assert resumed.mean == pytest.approx(sum(values[-resumed.width :]) / resumed.width)


def test_memory_grows_with_the_logarithm() -> None:
    """A hundred thousand labels are kept in a kilobyte or two."""
    adwin = Adwin()
    changes(adwin, errors(6, (100_000, 0.2)))

    assert sum(len(row) for row in json.loads(msgspec.json.encode(adwin.state))["rows"]) < 100
    assert adwin.width == 100_000


def test_before_the_first_value_there_is_no_mean() -> None:
    """And no change either."""
    assert math.isnan(Adwin().mean)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_refused(value: float) -> None:
    """One NaN would poison the window for good."""
    with pytest.raises(ValueError, match="finite"):
        Adwin().update(value)


def test_a_delta_that_is_no_probability_is_refused() -> None:
    """It bounds the chance of a false alarm."""
    with pytest.raises(ValueError, match="between 0 and 1"):
        Adwin(1.0)
