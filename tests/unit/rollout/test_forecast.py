"""What `sluice plan` expects of a rollout."""

import pytest

from serving.config.schema import Approval, Bake, Guardrails, RolloutConfig, Rule, Step
from serving.config.units import Seconds
from serving.rollout.forecast import Forecast, Traffic, forecast

ERRORS = Rule(name="errors", metric="error_rate", tolerance=1.0, prove=2.0)
LAST = Step(weight=100.0)


def bake(**times: float) -> Bake:
    """From seconds and counts."""
    seconds = {name: Seconds(value) for name, value in times.items() if name in {"min", "max"}}
    counts = {name: int(value) for name, value in times.items() if name not in seconds}
    return Bake(**seconds, **counts)  # type: ignore[arg-type]


def plan(*steps: Step, rules: tuple[Rule, ...] = (ERRORS,), dry_run: tuple[str, ...] = ()) -> (
    RolloutConfig
):  # fmt: skip
    """A rollout of v2 in these steps and then 100 %."""
    return RolloutConfig(
        canary="v2",
        steps=[*steps, LAST],
        guardrails=Guardrails(rules=list(rules), dry_run=list(dry_run)),
    )


def at(rate: float = 100.0, keys: int | None = None, errors: float = 0.005) -> Traffic:
    """Traffic with a share of errors."""
    return Traffic(rate=rate, keys=keys, shares={"errors": errors})


def warnings(found: Forecast) -> list[str]:
    """Of all steps."""
    return [words for step in found.steps for words in step.warnings]


def test_a_doubled_error_rate_takes_as_long_as_in_the_reference() -> None:
    """5 %, 100 requests/s, 0.5 % errors, tolerance 1: 287 events at 31.5 a minute."""
    [first, _] = forecast(plan(Step(weight=5.0, bake=bake(min=60))), at()).steps

    [rule] = first.rules
    assert rule.doubled_seconds is not None
    assert rule.doubled_seconds / 60 == pytest.approx(9.1, abs=0.05)
    assert rule.doubled_seconds / 60 * 31.5 == pytest.approx(287, abs=1)


def test_the_rules_share_alpha() -> None:
    """With a second rule that decides, each needs more; a dry run takes nothing."""
    slow = Rule(name="slow", metric="latency", exceeds=Seconds(0.05), tolerance=1.5)
    step = Step(weight=5.0, bake=bake(min=60))

    alone = forecast(plan(step), at()).steps[0].rules[0]
    shared = forecast(plan(step, rules=(ERRORS, slow)), at()).steps[0].rules[0]
    dry = forecast(plan(step, rules=(ERRORS, slow), dry_run=("slow",)), at()).steps[0].rules[0]

    assert (alone.alpha, shared.alpha, dry.alpha) == (0.05, 0.025, 0.05)
    assert alone.doubled_seconds is not None
    assert shared.doubled_seconds is not None
    assert shared.doubled_seconds > alone.doubled_seconds == dry.doubled_seconds


def test_a_doubling_within_tolerance_is_never_found() -> None:
    """Who tolerates twice as many errors is not told of twice as many."""
    lax = Rule(name="errors", metric="error_rate", tolerance=2.0)
    found = forecast(plan(Step(weight=5.0, bake=bake(min=60)), rules=(lax,)), at())

    assert found.steps[0].rules[0].doubled_seconds is None


def test_a_step_that_cannot_see_says_so() -> None:
    """At 1 % of little traffic for two hours there are one or two errors."""
    rule = Rule(name="errors", metric="error_rate", tolerance=1.5)
    found = forecast(
        plan(Step(weight=1.0, bake=bake(min=900, max=7200)), rules=(rule,)), at(rate=4)
    )

    [words] = warnings(found)
    assert words.startswith(
        "weight 1 % for at most 2 h sees 1.4 errors of the canary: nothing below "
    )
    assert words.endswith("can be proven by `errors`; give it more weight or time")


def test_a_step_without_an_end_lasts_until_it_is_proven() -> None:
    """Then nothing is warned of."""
    found = forecast(plan(Step(weight=5.0, bake=bake(min=60))), at())
    [first, last] = found.steps

    assert first.expected == first.rules[0].proof_seconds == found.expected
    assert last.expected == 0.0
    assert warnings(found) == []


def test_a_proof_goes_on_from_step_to_step() -> None:
    """What the first step has told need not be told again."""
    steps = Step(weight=5.0, bake=bake(min=60, max=300)), Step(weight=5.5, bake=bake(min=60))
    whole = forecast(plan(steps[1]), at()).steps[0].rules[0].proof_seconds
    rest = forecast(plan(*steps), at()).steps[1].rules[0].proof_seconds

    assert whole is not None
    assert rest is not None
    assert whole - 300 < rest < whole


def test_a_proof_longer_than_the_step_is_told_of() -> None:
    """With how long it would take."""
    found = forecast(plan(Step(weight=5.0, bake=bake(min=60, max=120))), at())

    assert any(
        "weight 5 % for at most 2 min is over before `errors` is proven below 2 ×, which takes "
        "about 12 min" in words
        for words in warnings(found)
    ), warnings(found)


def test_too_few_keys_never_prove_anything() -> None:
    """Each key counts once: two hundred with an error each are not enough."""
    found = forecast(plan(Step(weight=5.0, bake=bake(min=60))), at(keys=200))

    assert found.expected is None
    assert found.steps[0].rules[0].proof_seconds is None
    assert any("never proves `errors`" in words for words in warnings(found))


def test_keys_are_exposed_by_and_by() -> None:
    """At 5 % at most one in twenty."""
    found = forecast(plan(Step(weight=5.0, bake=bake(min=10, max=100)), rules=()), at(keys=10_000))

    assert found.steps[0].keys == pytest.approx(10_000 * 0.05 * (1 - 2.718281828**-1))


def test_samples_that_cannot_arrive_are_told_of() -> None:
    """5 % of 100 requests/s are 300 a minute."""
    found = forecast(
        plan(Step(weight=5.0, bake=bake(max=60, min_samples=1000, min_keys=50)), rules=()),
        at(keys=500),
    )

    assert found.steps[0].unreachable == [
        "weight 5 % for at most 1 min gets about 300 requests, not the 1,000 of `min_samples`",
        "weight 5 % for at most 1 min meets about 25 keys, not the 50 of `min_keys`",
    ]


def test_labels_cannot_outnumber_predictions() -> None:
    """Those of earlier steps count too, and a step without an end has no limit."""
    first, second = bake(min=1, max=60), bake(max=60, require_labels=500)
    ended = forecast(plan(Step(weight=1.0, bake=first), Step(weight=5.0, bake=second)), at())
    endless = forecast(
        plan(Step(weight=1.0, bake=bake(min=1)), Step(weight=5.0, bake=second)), at()
    )

    [words] = ended.steps[1].unreachable
    assert words.startswith("weight 5 % for at most 1 min has about 360 predictions by its end")
    assert endless.steps[1].unreachable == []


def test_a_shadow_step_waits_for_copies() -> None:
    """And proves nothing, since it draws no lots."""
    found = forecast(plan(Step(shadow=25.0, bake=bake(min=10, min_samples=5000))), at())
    first = found.steps[0]

    assert (first.copies_rate, first.canary_rate, first.expected) == (25.0, 0.0, 200.0)
    assert first.rules == []


def test_an_approval_lasts_as_long_as_a_person_takes() -> None:
    """It is no part of the whole time."""
    approve = Step(approve=Approval(group="ml"))
    found = forecast(plan(Step(weight=5.0, bake=bake(min=60)), approve, rules=()), at())

    assert found.steps[1].words == "approval of ml"
    assert found.steps[1].expected is None
    assert found.expected == 60.0


def test_without_traffic_nothing_comes() -> None:
    """It divides by no nought."""
    found = forecast(plan(Step(weight=5.0, bake=bake(min=60, min_samples=5))), at(rate=0))

    assert found.expected is None
    assert found.steps[0].requests is None


def test_what_nobody_knows_is_not_guessed() -> None:
    """A bound on latency says nothing of how often it is exceeded now."""
    slow = Rule(name="slow", metric="latency", exceeds=Seconds(0.05), tolerance=1.5, prove=2.0)
    found = forecast(plan(Step(weight=5.0, bake=bake(min=60)), rules=(slow,)), at())

    assert found.steps[0].rules[0].share is None
    assert found.steps[0].rules[0].doubled_seconds is None
    assert found.expected == 60.0
