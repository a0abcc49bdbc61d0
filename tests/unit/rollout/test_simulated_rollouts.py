"""Plans that are tried on made-up traffic."""

import msgspec
import numpy as np
import pytest

from serving.config.schema import Bake, Guardrails, HardStops, RolloutConfig, Rule, Step
from serving.config.units import Seconds
from serving.performance.intervals import wilson
from serving.rollout.simulate.arrivals import Requests
from serving.rollout.simulate.hard_stops import HardStopWatch
from serving.rollout.simulate.scenarios import traffic
from serving.rollout.simulate.stages import stages
from serving.rollout.simulate.verdicts import Answer, Question, answer
from serving.rollout.simulate.world import CANARIES, Signal, World

ERRORS = Rule(name="errors", metric="error_rate", tolerance=1.0)


def plan(
    *weights: float,
    rules: tuple[Rule, ...] = (ERRORS,),
    seconds: float = 600.0,
    most: float | None = None,
    **guardrails: object,
) -> RolloutConfig:
    """These weights, each for so long."""
    bake = Bake(min=Seconds(seconds), max=Seconds(most or seconds))
    steps = [*(Step(weight=weight, bake=bake) for weight in weights), Step(weight=100)]
    return RolloutConfig(
        canary="v2",
        steps=steps,
        guardrails=Guardrails(rules=list(rules), **guardrails),  # type: ignore[arg-type]
    )


def ask(rollout: RolloutConfig, canary: str = "as-good", **more: object) -> Answer:
    """Two hundred runs."""
    question = Question(rollout=rollout, canary=CANARIES[canary], **({"runs": 200} | more))  # type: ignore[arg-type]
    return answer(question)


def test_the_same_seed_gives_the_same_answer() -> None:
    """Chance is told."""
    assert ask(plan(5), "fails-twice-as-often", runs=50) == ask(
        plan(5), "fails-twice-as-often", runs=50
    )


def test_a_worse_version_is_found_sooner_the_worse_it_is() -> None:
    """Twice, four times, always."""
    medians = [
        ask(plan(25), canary).median
        for canary in ("fails-twice-as-often", "fails-four-times-as-often", "always-fails")
    ]

    assert all(median is not None for median in medians)
    assert medians == sorted(medians, reverse=True)


def test_a_tolerance_lets_pass_what_it_tolerates() -> None:
    """Half as many errors again are fine at 1.5, and found at 1.0."""
    strict, mild = (
        ask(plan(25, rules=(msgspec.structs.replace(ERRORS, tolerance=least),), seconds=3600.0),
            "fails-half-more")
        for least in (1.0, 1.5)
    )  # fmt: skip

    assert strict.share > 0.9
    assert mild.high < 0.1


def test_rules_share_alpha() -> None:
    """With others beside it a rule needs more, so it takes longer."""
    idle = tuple(Rule(name=f"more-{n}", metric="feature_health") for n in range(9))
    alone, beside = (
        ask(plan(25, rules=rules), "fails-twice-as-often").median
        for rules in ((ERRORS,), (ERRORS, *idle))
    )

    assert alone is not None
    assert beside is not None
    assert beside > alone


def test_a_rule_of_a_dry_run_stops_nothing() -> None:
    """It is left out, and named."""
    found = ask(plan(25, dry_run=["errors"]), "always-fails", hard_stops=False)

    assert found.stopped == 0
    assert found.left_out == ["errors"]


def test_a_step_that_must_prove_goes_on_when_it_has() -> None:
    """Later than `min`, and before `max`."""
    rule = Rule(name="errors", metric="error_rate", tolerance=1.5, prove=2.0)
    found = ask(plan(25, rules=(rule,), seconds=10.0, most=7200.0))

    assert found.completed > 190
    assert found.duration is not None
    assert 10 < found.duration < 7200


def test_a_step_without_its_proof_at_the_end_is_inconclusive() -> None:
    """Or goes on all the same, where the plan says so."""
    rule = Rule(name="errors", metric="error_rate", tolerance=1.5, prove=1.1)
    paused = ask(plan(1, rules=(rule,)))
    promoted = ask(plan(1, rules=(rule,), on_inconclusive="promote"))

    assert paused.inconclusive > 190
    assert promoted.completed > 190


def test_a_step_waits_for_its_samples() -> None:
    """Five requests a second are 6,000 after twenty minutes."""
    waiting = Step(weight=5, bake=Bake(min=Seconds(60.0), max=Seconds(7200.0), min_samples=6000))
    rollout = RolloutConfig(
        canary="v2", steps=[waiting, Step(weight=100)], guardrails=Guardrails(rules=[ERRORS])
    )

    found = ask(rollout)

    assert found.duration == pytest.approx(1200, rel=0.05)


def test_a_step_waits_for_its_users() -> None:
    """Half of a hundred users have met it at some time; ninety never do."""
    found = {
        keys: ask(
            RolloutConfig(
                canary="v2",
                steps=[
                    Step(
                        weight=50,
                        bake=Bake(min=Seconds(10.0), max=Seconds(600.0), min_keys=keys),
                    ),
                    Step(weight=100),
                ],
                guardrails=Guardrails(rules=[ERRORS]),
            ),
            keys=100,
        )
        for keys in (30, 90)
    }

    assert found[30].completed > 190
    assert found[90].inconclusive > 190


def test_shadow_steps_and_approvals_take_no_part() -> None:
    """Nothing is drawn in them."""
    rollout = RolloutConfig(
        canary="v2",
        steps=[
            Step(shadow=25, bake=Bake(min=Seconds(60.0), min_samples=5000)),
            Step(weight=5, bake=Bake(min=Seconds(60.0))),
            Step(weight=100),
        ],
    )
    found = stages(rollout, World(requests_per_second=100.0))

    assert [(stage.rho, stage.at_least) for stage in found] == [(0.0, 200.0), (0.05, 60.0)]


def watched(
    stops: HardStops, production: float, canary: float, *, rho: float, rate: float, trials: int
) -> "np.typing.NDArray[np.int64]":
    """When a hard stop trips, in half an hour with so many requests of the canary a second."""
    random = np.random.default_rng(1)
    arrivals = Requests(traffic("flat", 1800.0), rate / rho, trials, random)
    arrivals.begin(rho, np.zeros(trials, np.int64))
    signal = Signal("errors", "errors", production, canary)
    watch = HardStopWatch(stops, 1.0, trials, random)
    return watch.first(arrivals, signal, arrivals.requests(0, 1800), 0, rho)


def test_a_hard_stop_waits_for_so_many_failures_in_a_row() -> None:
    """Five failures of a version that always fails come in the first seconds, and not at once."""
    first = watched(HardStops(), 0.001, 1.0, rho=0.01, rate=2.0, trials=200)

    assert 1.5 < first.mean() < 4.5


def test_runs_of_failures_come_as_often_as_they_should() -> None:
    """Five in a row, each with probability ½, take 62 requests on average."""
    stops = HardStops(consecutive_errors=5, error_rate=1.0)
    first = watched(stops, 0.0, 0.5, rho=0.001, rate=1.0, trials=2000)

    assert float(first.mean()) == pytest.approx(62, rel=0.15)


def test_a_hard_stop_does_not_trip_while_production_fails_as_often() -> None:
    """Half of all requests fail, with either version."""
    first = watched(HardStops(), 0.5, 0.5, rho=0.05, rate=50.0, trials=20)

    assert (first >= 1800).mean() >= 0.95


@pytest.mark.parametrize("keys", [None, 2000])
@pytest.mark.parametrize("scenario", ["flat", "incident", "rising", "falling", "daily"])
def test_a_good_version_is_stopped_no_more_often_than_alpha(
    scenario: str, keys: int | None
) -> None:
    """The upper end of the interval, over a ramp that is looked at every second."""
    found = ask(
        plan(1, 5, 25, 50, seconds=300.0),
        scenario=scenario, keys=keys, runs=2000 if keys is None else 1000, seed=3,
    )  # fmt: skip

    assert found.stopped > 0, "a test that cannot fail: nothing is ever stopped"
    assert wilson(found.share, found.runs).high <= 0.05
