"""The ratio of event rates: e-processes for a breach and for the proof, and the interval."""

import math

import numpy as np
import pytest
from scipy import special

from serving.rollout.evidence.relative_risk import (
    FACTORS,
    average,
    estimate,
    log_breach,
    log_breach_array,
    log_proof,
    log_proof_array,
    ratio_interval,
    theta,
    total,
)

RAMP = {0.01: (3, 120), 0.05: (14, 160), 0.25: (40, 90)}
SIDES = [(log_breach, [*FACTORS]), (log_proof, [1 / factor for factor in FACTORS])]


def event_by_event(
    counts: dict[float, tuple[int, int]], null: float, factors: list[float]
) -> float:
    """The definition: a product of likelihood ratios per factor, averaged."""
    products = []
    for factor in factors:
        product = 1.0
        for rho, (canary, production) in counts.items():
            bet, fair = theta(null * factor, rho), theta(null, rho)
            for _ in range(canary):
                product *= bet / fair
            for _ in range(production):
                product *= (1 - bet) / (1 - fair)
        products.append(product)
    return sum(products) / len(products)


def truncated_beta(canary: int, production: int, share: float, pseudo: float) -> float:
    """Ln E of a Beta(k·θ₀, k·(1 − θ₀)) mixture, cut off below θ₀, against θ ≤ θ₀."""
    a, b = pseudo * share, pseudo * (1 - share)
    return float(
        special.betaln(a + canary, b + production)
        - special.betaln(a, b)
        - canary * math.log(share)
        - production * math.log1p(-share)
        + np.log(special.betainc(b + production, a + canary, 1 - share))
        - np.log(special.betainc(b, a, 1 - share))
    )


def test_theta_is_the_share_of_events() -> None:
    """With a twentieth of the traffic and three times the rate, 3 of 22 events are the canary's."""
    assert theta(3, 0.05) == pytest.approx(3 / 22)
    assert theta(1, 0.05) == pytest.approx(0.05)
    assert theta(0, 0.05) == 0


@pytest.mark.parametrize("null", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("side", SIDES, ids=["breach", "proof"])
def test_the_mixture_is_the_product_over_events(side: tuple, null: float) -> None:
    """The logarithm from counts is that of the product event by event."""
    log_e, factors = side
    counts = {0.05: (9, 60), 0.25: (20, 45)}

    assert log_e(counts, null) == pytest.approx(math.log(event_by_event(counts, null, factors)))


@pytest.mark.parametrize(("canary", "production"), [(12, 60), (30, 200), (60, 400), (40, 90)])
def test_the_grid_is_as_good_as_a_beta_mixture(canary: int, production: int) -> None:
    """Seven factors lose at most 2.5 nats to the closed form with a continuous mixture."""
    grid = log_breach({0.05: (canary, production)}, 1.0)

    assert grid > truncated_beta(canary, production, 0.05, pseudo=20) - 2.5


@pytest.mark.parametrize(("log_e", "_"), SIDES, ids=["breach", "proof"])
def test_splitting_counts_changes_nothing(log_e: object, _: object) -> None:
    """The exponent of one factor is a sum over levels, so what is split by a hair adds up."""
    assert callable(log_e)
    whole = log_e({0.05: (14, 160)}, 1.2)
    split = log_e({0.05: (9, 100), 0.05 + 1e-12: (5, 60)}, 1.2)

    assert split == pytest.approx(whole, abs=1e-8)


def test_a_level_without_events_says_nothing() -> None:
    """A weight at which nothing has happened yet leaves everything as it is."""
    more = {**RAMP, 0.5: (0, 0)}

    assert log_breach(more, 1.5) == pytest.approx(log_breach(RAMP, 1.5))
    assert log_proof(more, 1.5) == pytest.approx(log_proof(RAMP, 1.5))
    assert ratio_interval(more, 0.05) == pytest.approx(ratio_interval(RAMP, 0.05))


def test_more_events_of_the_canary_are_more_evidence() -> None:
    """An event of the canary adds to the breach and takes from the proof; else the reverse."""
    breach = [log_breach({0.1: (count, 50)}, 1.2) for count in range(30)]
    proof = [log_proof({0.1: (count, 50)}, 1.2) for count in range(30)]

    assert breach == sorted(breach)
    assert proof == sorted(proof, reverse=True)
    assert log_breach({0.1: (9, 51)}, 1.2) < log_breach({0.1: (9, 50)}, 1.2)


def test_a_higher_null_is_harder_to_refute() -> None:
    """Evidence for a breach falls with the tolerance, that for the proof grows with its bound."""
    nulls = [0.2, 0.5, 1.0, 1.5, 2.0, 4.0]
    breach = [log_breach(RAMP, null) for null in nulls]
    proof = [log_proof(RAMP, null) for null in nulls]

    assert breach == sorted(breach, reverse=True)
    assert proof == sorted(proof)


def test_swapping_the_versions_turns_the_ratio_round() -> None:
    """With canary and production exchanged, breach and proof are exchanged and ratios inverted."""
    turned = {1 - rho: (production, canary) for rho, (canary, production) in RAMP.items()}
    interval, mirrored = ratio_interval(RAMP, 0.05), ratio_interval(turned, 0.05)

    assert log_proof(turned, 1 / 1.3) == pytest.approx(log_breach(RAMP, 1.3))
    assert mirrored.low == pytest.approx(1 / interval.high)
    assert mirrored.high == pytest.approx(1 / interval.low)
    assert estimate(turned) == pytest.approx(1 / (estimate(RAMP) or math.nan))


def test_the_mean_of_one_more_event_is_at_most_one() -> None:
    """Given any past, the next event's factor averages 1 at the null and less below it."""
    rho, null = 0.05, 1.5
    for canary, production in [(0, 0), (3, 20), (30, 100)]:
        before = log_breach({rho: (canary, production)}, null)
        up = math.exp(log_breach({rho: (canary + 1, production)}, null) - before)
        down = math.exp(log_breach({rho: (canary, production + 1)}, null) - before)

        def mean(ratio: float, up: float = up, down: float = down) -> float:
            return theta(ratio, rho) * up + (1 - theta(ratio, rho)) * down

        assert mean(null) == pytest.approx(1)
        assert mean(1.0) < 1
        assert mean(2.0) > 1


def test_the_estimate_with_one_weight_is_the_ratio_of_rates() -> None:
    """11 % of the events at 5 % of the traffic: (s / ρ) / (f / (1 − ρ))."""
    assert estimate({0.05: (11, 89)}) == pytest.approx((11 / 0.05) / (89 / 0.95))


def test_the_estimate_where_one_side_has_no_event() -> None:
    """Nothing, 0 or infinity: never an error."""
    assert estimate({}) is None
    assert estimate({0.05: (0, 0)}) is None
    assert estimate({0.05: (0, 9)}) == 0
    assert estimate({0.05: (9, 0)}) == math.inf


def test_the_interval_ends_where_the_evidence_reaches_its_bound() -> None:
    """At each end one side's e-value is 2/α, and the estimate is between."""
    low, high = ratio_interval(RAMP, 0.05)
    found = estimate(RAMP)

    assert found is not None
    assert low < found < high
    assert log_breach(RAMP, low) == pytest.approx(math.log(40))
    assert log_proof(RAMP, high) == pytest.approx(math.log(40))


def test_the_interval_is_that_of_the_average_of_both_grids() -> None:
    """It holds every ratio that the average does not refute, and no ratio 1 % outside that."""
    low, high = ratio_interval(RAMP, 0.05)

    def both(ratio: float) -> float:
        return average([log_breach(RAMP, ratio), log_proof(RAMP, ratio)])

    assert both(low * 0.999) > math.log(20)
    assert both(high * 1.001) > math.log(20)
    assert both(low * 1.01) < math.log(20)
    assert both(high / 1.01) < math.log(20)


def test_the_interval_without_events_on_one_side() -> None:
    """The side that is known is bounded, the other is not."""
    only_production = ratio_interval({0.2: (0, 200)}, 0.05)
    only_canary = ratio_interval({0.2: (30, 0)}, 0.05)

    assert only_production.low == 0
    assert 0 < only_production.high < 1
    assert only_canary.low > 1
    assert only_canary.high == math.inf
    assert ratio_interval({}, 0.05) == (0, math.inf)
    assert ratio_interval({0.2: (0, 0)}, 0.05) == (0, math.inf)


def test_a_smaller_alpha_is_a_wider_interval() -> None:
    """What must be wrong less often says less."""
    wide, narrow = ratio_interval(RAMP, 0.001), ratio_interval(RAMP, 0.2)

    assert wide.low < narrow.low < narrow.high < wide.high


def test_hundreds_of_thousands_of_events_do_not_overflow() -> None:
    """The logarithm stays finite where the e-value itself is no float any more."""
    found = log_breach({0.5: (400_000, 100_000)}, 1.0)

    assert 10_000 < found < math.inf
    assert log_proof({0.5: (400_000, 100_000)}, 1.0) < 0


@pytest.mark.parametrize("rho", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_probability_that_decides_nothing_is_refused(rho: float) -> None:
    """Where the arm was certain there is nothing to learn."""
    with pytest.raises(ValueError, match="above 0 and below 1"):
        log_breach({rho: (1, 2)}, 1.0)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        log_breach_array({rho: (np.array([1]), np.array([2]))}, 1.0)


def test_a_null_of_zero_is_refused() -> None:
    """No event at all cannot be multiplied."""
    with pytest.raises(ValueError, match="above 0"):
        log_breach(RAMP, 0.0)
    with pytest.raises(ValueError, match="above 0"):
        log_proof_array({0.5: (np.array([1]), np.array([2]))}, -1.0)


def test_arrays_say_what_single_counts_say() -> None:
    """Any shape of counts gives, element by element, what each gives alone."""
    chance = np.random.default_rng(1)
    arrays = {
        rho: (chance.integers(0, 40, (3, 4)), chance.integers(0, 400, (3, 4))) for rho in RAMP
    }
    breach, proof = log_breach_array(arrays, 1.3), log_proof_array(arrays, 2.0)

    assert breach.shape == proof.shape == (3, 4)
    for place in np.ndindex(3, 4):
        one = {rho: (int(s[place]), int(f[place])) for rho, (s, f) in arrays.items()}
        assert breach[place] == pytest.approx(log_breach(one, 1.3))
        assert proof[place] == pytest.approx(log_proof(one, 2.0))


def test_arrays_of_a_weight_that_came_later_are_added() -> None:
    """A level with fewer dimensions counts for each of the others."""
    found = log_breach_array(
        {0.05: (np.array([1, 5]), np.array([10, 10])), 0.25: (np.array(4), np.array(9))}, 1.0
    )

    assert found[1] == pytest.approx(log_breach({0.05: (5, 10), 0.25: (4, 9)}, 1.0))


def test_the_average_is_that_of_the_values() -> None:
    """Of 1, 3 and 8 it is 4; of none it is 1."""
    assert average(math.log(value) for value in (1, 3, 8)) == pytest.approx(math.log(4))
    assert average([]) == 0
    assert average([-5000.0, -5000.0]) == pytest.approx(-5000)


def test_the_total_is_over_all_weights() -> None:
    """Events of canary and production."""
    assert total(RAMP) == (57, 370)
    assert total({}) == (0, 0)
