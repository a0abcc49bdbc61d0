"""Traffic that is made up for `sluice rollout simulate`."""

import numpy as np
import pytest

from serving.config.schema import Rule
from serving.rollout.simulate.arrivals import Requests
from serving.rollout.simulate.crowd import Crowd
from serving.rollout.simulate.scenarios import SCENARIOS, Traffic, traffic
from serving.rollout.simulate.world import CANARIES, Signal, World, signals_of

ERRORS = Signal("errors", "errors", 0.01, 0.01)
HOUR = 3600


def crowd(keys: int = 400, trials: int = 50, seed: int = 1) -> Crowd:
    """Users with ten requests a second in all, for two hours."""
    flat = traffic("flat", 2 * HOUR)
    return Crowd(flat, 10.0, keys, trials, np.random.default_rng(seed))


def nobody(trials: int = 50) -> "np.typing.NDArray[np.int64]":
    """All trials at the beginning."""
    return np.zeros(trials, np.int64)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_is_as_long_as_asked_and_never_negative(name: str) -> None:
    """One value a look."""
    found = traffic(name, 600.0, 2.0)

    assert len(found.volume) == len(found.level) == 300
    assert found.volume.min() > 0
    assert found.level.min() > 0


def test_an_incident_lasts_five_minutes_for_both_versions() -> None:
    """It is in what they share."""
    level = traffic("incident", HOUR).level

    assert int((level > 1).sum()) == 300
    assert level[HOUR // 2] == 20


def test_an_unknown_scenario_names_those_there_are() -> None:
    """The message helps."""
    with pytest.raises(ValueError, match="there is flat, daily"):
        traffic("weekly", HOUR)


def test_requests_are_drawn_with_the_canarys_probability() -> None:
    """A twentieth of the errors is the canary's if it is as good."""
    arrivals = Requests(traffic("flat", HOUR), 100.0, 20, np.random.default_rng(2))
    arrivals.begin(0.05, nobody(20))

    canary, production = arrivals.events(ERRORS, 0, HOUR)

    assert canary.shape == (1, 20, HOUR)
    share = canary.sum() / (canary.sum() + production.sum())
    assert share == pytest.approx(0.05, abs=0.005)


def test_a_user_counts_once_however_often_he_fails() -> None:
    """Seven hundred errors in two steps are those of about a hundred users."""
    users = crowd()
    total = np.zeros(50, np.int64)
    for step, rho in enumerate((0.05, 0.5)):
        users.begin(rho, nobody() + step * HOUR)
        total += sum(counts.sum((0, 2)) for counts in users.events(ERRORS, 0, HOUR))
        users.end(np.full(50, HOUR))

    assert 50 < total.min() <= total.max() < 200


def test_no_user_goes_back_when_the_weight_rises() -> None:
    """Who was taken stays taken."""
    users = crowd()
    users.begin(0.05, nobody())
    before = users.taken.copy()
    users.begin(0.25, nobody())

    assert before.any()
    assert not (before & ~users.taken).any()


def test_a_step_that_ends_early_has_not_seen_what_came_later() -> None:
    """Events after the end are drawn again, in the step that follows."""
    users = crowd()
    users.begin(0.5, nobody())
    early = sum(counts[..., :600].sum() for counts in users.events(ERRORS, 0, HOUR))
    users.end(np.full(50, 600))
    users.begin(0.5, nobody() + 600)
    late = sum(counts.sum() for counts in users.events(ERRORS, 0, HOUR))

    whole = crowd()
    whole.begin(0.5, nobody())
    straight = sum(counts.sum() for counts in whole.events(ERRORS, 0, HOUR + 600))
    assert early + late == straight


def test_requests_that_come_in_blocks_are_the_same_events() -> None:
    """Where a block ends changes nothing for users."""
    one, two = crowd(), crowd()
    for users in (one, two):
        users.begin(0.25, nobody())
    whole, _ = one.events(ERRORS, 0, 1000)
    parts = [two.events(ERRORS, first, 250)[0] for first in range(0, 1000, 250)]

    assert (whole == np.concatenate(parts, axis=2)).all()


def test_a_flip_moves_predictions_to_the_last_bin() -> None:
    """Two of a hundred keys are predicted something else."""
    rule = Rule(name="scores", metric="prediction_shift")
    (signal,) = signals_of(rule, World(), CANARIES["flipped"])

    assert sum(mine for _, mine in signal.bins) == pytest.approx(1.0)
    assert signal.bins[-1][1] == pytest.approx(0.1 * 0.98 + 0.02)


def test_only_the_tail_of_a_slow_canary_is_slow() -> None:
    """Beyond p50 and p90 it is as production is."""
    rule = Rule(name="slow", metric="latency")
    ratios = [
        one.canary / one.production for one in signals_of(rule, World(), CANARIES["slow-tail"])
    ]

    assert ratios == pytest.approx([1.0, 1.0, 3.0])


def test_the_level_of_traffic_moves_what_is_bad_and_no_prediction() -> None:
    """A score does not become another one because things fail."""
    twice = Traffic(np.ones(100), np.full(100, 50.0))
    arrivals = Requests(twice, 1000.0, 10, np.random.default_rng(3))
    arrivals.begin(0.5, nobody(10))
    half = Signal("scores", "scores", 1.0, 1.0, shared=False, bins=((0.5, 0.5), (0.5, 0.5)))

    errors = sum(counts.sum() for counts in arrivals.events(ERRORS, 0, 100))
    scores = sum(counts.sum() for counts in arrivals.events(half, 0, 100))

    assert errors / scores == pytest.approx(0.5, abs=0.01)
