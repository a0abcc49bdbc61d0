"""What each rule says of a rollout."""

import math
from typing import Any

import msgspec
import pytest
from rollout_judge_kit import Counted, plan

from serving.config.schema import RolloutConfig
from serving.config.snapshot import RolloutTraffic
from serving.rollout.evidence.first_events import ratio_of_users
from serving.rollout.evidence.losses import MeanBounds
from serving.rollout.evidence.relative_risk import estimate, log_breach, log_proof
from serving.rollout.judge import judge, learns_in
from serving.rollout.judged.labels import RuleResult
from serving.rollout.looks import looked
from serving.rollout.standing import RuleStanding

ERRORS = {"name": "errors", "metric": "error_rate", "tolerance": 1.5}
PROVEN = ERRORS | {"prove": 2.0}
MET: dict[str, Any] = {"requests": (5_000, 95_000), "keys": (1_000, 19_000)}
ALIKE = {0.05: (50, 950)}
WORSE = {0.05: (34, 150)}


def traffic(**more: Any) -> RolloutTraffic:
    """A rollout at 5 %."""
    return RolloutTraffic(
        id="m-r1", revision=1, canary="v2", production="v1", **({"weight": 5.0} | more)
    )


def only(config: RolloutConfig, book: Counted, **more: Any) -> RuleStanding:
    """The standing of the plan's one rule."""
    given: dict[str, Any] = {"looks": {}, "labels": {}, "traffic": traffic()}
    [found] = judge(config, book, **(given | more))
    return found


def test_a_proven_breach_is_regressed_and_says_so_in_a_sentence() -> None:
    """Ratio, interval, counts and what is proven."""
    found = only(plan(ERRORS), Counted(signal={"errors": WORSE}, **MET))

    assert found.verdict == "regressed"
    assert found.e_value == pytest.approx(math.exp(log_breach(WORSE, 1.5)))
    assert found.bound == pytest.approx(20)
    assert found.value == pytest.approx(estimate(WORSE))
    assert (found.canary_events, found.production_events) == (34, 150)
    assert (found.canary_units, found.production_units, found.unit) == (1_000, 19_000, "keys")
    assert found.action == "abort"
    assert found.words == (
        "canary 4.31 × production, between 2.36 and 7.34, after 34 and 150 events: "
        "proven worse than 1.5 × production"
    )


@pytest.mark.parametrize("canary", range(0, 40, 3))
def test_the_interval_never_contradicts_the_verdict(canary: int) -> None:
    """It begins above a tolerance that is breached, and no other; it ends below a met `prove`."""
    found = only(plan(PROVEN), Counted(signal={"errors": {0.05: (canary, 200)}}, **MET))

    assert found.low is not None
    assert found.high is not None
    assert (found.low > 1.5) == (found.verdict == "regressed")
    assert (found.high < ratio_of_users(2.0, 200 / 19_000)) == (found.proof == 1.0)


def test_rules_that_decide_share_alpha() -> None:
    """Dry runs and thresholds take no part of it; a dry run is held against the same bound."""
    limit = {"name": "cap", "metric": "error_rate", "test": "threshold", "at_most": 0.05}
    rules = [ERRORS | {"name": name} for name in ("a", "b", "c")]
    found = judge(
        plan(*rules, limit, dry_run=["c"]), Counted(**MET), looks={}, labels={}, traffic=traffic()
    )

    assert [one.bound for one in found] == pytest.approx([40, 40, 40, 0])
    assert [one.dry_run for one in found] == [False, False, True, False]


def test_a_proof_takes_alpha_itself() -> None:
    """However many rules there are, each is proven at the rollout's α."""
    rules = [PROVEN | {"name": name} for name in ("a", "b", "c", "d")]
    counts = {0.05: (10, 235)}
    assert math.log(20) < log_proof(counts, 2.0) < math.log(80)
    found = judge(
        plan(*rules), Counted(signal={"a": counts}, **MET), looks={}, labels={}, traffic=traffic()
    )

    assert (found[0].verdict, found[0].proof, found[0].needed_events) == ("ok", 1.0, 0)
    assert found[0].words.endswith("proven below 2 × production")
    assert found[1].verdict == "undecided"


def test_without_prove_what_is_not_breached_is_ok() -> None:
    """Time is enough then."""
    found = only(plan(ERRORS), Counted(signal={"errors": ALIKE}, **MET))

    assert (found.verdict, found.proof) == ("ok", None)
    assert found.words.endswith(": nothing is proven against it")


def test_an_unfinished_proof_says_what_is_missing_and_when_it_is_there() -> None:
    """Events if the versions are alike, and their time at the rate of the last looks."""
    config = plan(PROVEN)
    before, after = ({"errors": {0.05: (n, 19 * n)}} for n in (2, 5))
    looks = looked(config, Counted(signal=before, **MET), {}, 1000.0)
    book = Counted(signal=after, **MET)
    looks = looked(config, book, looks, 1060.0)
    found = only(config, book, looks=looks)

    assert found.verdict == "undecided"
    assert found.proof is not None
    assert 0 <= found.proof < 1
    assert found.needed_events is not None
    assert 150 < found.needed_events < 350
    assert found.eta == pytest.approx(found.needed_events / (60 / 60))
    assert f"about {found.needed_events:,} more events" in found.words


def test_while_nothing_is_drawn_there_is_no_forecast() -> None:
    """In a shadow step no number of events would come."""
    found = only(
        plan(PROVEN),
        Counted(signal={"errors": {0.05: (2, 40)}}, **MET),
        traffic=traffic(weight=0.0),
    )

    assert found.verdict == "undecided"

    assert (found.needed_events, found.eta) == (None, None)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((0, 0), "no request that was drawn"),
        ((9, 0), "no request of production yet"),
        ((0, 9), "no request of the canary yet"),
    ],
)
def test_no_traffic_is_no_data(keys: tuple[int, int], words: str) -> None:
    """Neither a pass nor a failure, whatever the rule."""
    found = only(plan(PROVEN), Counted(requests=keys, keys=keys))

    assert found.verdict == "no_data"
    assert found.words.startswith(words)


def test_no_event_among_many_requests_is_data() -> None:
    """Nothing is breached; a proof needs events all the same."""
    assert only(plan(ERRORS), Counted(**MET)).verdict == "ok"
    found = only(plan(PROVEN), Counted(**MET))

    assert found.verdict == "undecided"
    assert found.words.startswith("no event yet among 1,000 and 19,000 keys")


def test_events_of_the_canary_alone_have_no_ratio_and_a_low_end() -> None:
    """Infinite is no number that can be written down."""
    found = only(plan(ERRORS), Counted(signal={"errors": {0.05: (8, 0)}}, **MET))

    assert (found.verdict, found.value, found.high) == ("regressed", None, None)
    assert found.words.startswith("canary alone, above ")
    msgspec.json.decode(msgspec.json.encode(found), type=RuleStanding)


def test_a_crowded_rule_is_undecided() -> None:
    """However strong its evidence looks."""
    book = Counted(signal={"errors": WORSE}, full=frozenset({"errors"}), **MET)

    assert only(plan(ERRORS), book).verdict == "undecided"


def test_requests_without_keys_are_called_requests() -> None:
    """Also while some of those that were drawn are not answered yet, or do not count."""
    book = Counted(signal={"errors": ALIKE}, requests=(48, 940), keys=(50, 950), keyed=False)

    assert only(plan(ERRORS), book).unit == "requests"


def test_users_who_have_nearly_all_had_it_prove_nothing() -> None:
    """Counted once, ten errors look like one: a canary twice as bad looks alike by then."""
    counts = {0.5: (4_600, 4_500)}
    users, requests = (
        only(
            plan(PROVEN),
            Counted(
                signal={"errors": counts}, requests=(50_000, 50_000), keys=(5_000, 5_000), keyed=has
            ),
        )
        for has in (True, False)
    )

    assert users.verdict == "undecided"
    assert users.needed_events is None
    assert users.words.endswith("too many keys have had it already for a proof to come")
    assert (requests.unit, requests.verdict) == ("requests", "ok")


def test_what_a_step_has_proven_stays_proven() -> None:
    """Also when nearly all keys have had the event at a later weight."""
    early, late = {0.05: (25, 500)}, {0.5: (9_000, 9_000)}
    met = {0.05: (1_000, 19_000), 0.5: (500, 500)}
    keys = {"requests": (90_000, 90_000), "keys": (10_500, 19_500)}

    def found(counts: dict[float, tuple[int, int]]) -> str:
        return only(plan(PROVEN), Counted(signal={"errors": counts}, exposed=met, **keys)).verdict

    assert found(early) == "ok"
    assert found(late) == "undecided"
    assert found(early | late) == "ok"


def test_a_latency_of_three_bounds_is_judged_by_their_mean() -> None:
    """It names the bound that is worst; one that nobody was beyond counts as well."""
    rule = {"name": "slow", "metric": "latency", "tolerance": 1.3}
    book = Counted(signal={"slow:0": ALIKE, "slow:1": WORSE}, **MET)
    found = only(plan(rule), book, traffic=traffic(latency_bounds={"slow": [0.01, 0.02, 0.08]}))
    values = [math.exp(log_breach(one, 1.3)) for one in (ALIKE, WORSE, {})]

    assert found.verdict == "regressed"
    assert found.e_value == pytest.approx(sum(values) / 3)
    assert "34 and 150 events beyond 20ms" in found.words


def test_a_latency_without_bounds_has_no_data() -> None:
    """Until production's percentiles are known nothing is counted."""
    found = only(plan({"name": "slow", "metric": "latency"}), Counted(**MET))

    assert found.verdict == "no_data"


SHIFT = {"name": "scores", "metric": "prediction_shift", "tolerance": 1.5}
MOVED = {"scores:0": ALIKE, "scores:1": {0.05: (130, 950)}, "scores:10": {0.05: (4, 950)}}


def test_a_shift_names_the_bins_that_moved_and_pauses() -> None:
    """By the range of their scores; the index stands beside what chance would give."""
    edges = [one / 10 for one in range(1, 11)]
    found = only(plan(SHIFT), Counted(signal=MOVED, **MET), traffic=traffic(bins={"scores": edges}))

    assert (found.verdict, found.action) == ("regressed", "pause")
    assert "scores from 0.1 to 0.2 predicted 2.6 × as often as production" in found.words
    assert "scores from 1 predicted 0.08 × as often as production" in found.words
    assert "PSI " in found.words
    assert "by chance at most" in found.words


def test_classes_that_moved_are_named_by_what_they_are() -> None:
    """A class that production never predicts, too."""
    signal = {"scores:yes": {0.05: (60, 0)}, "scores:no": {0.05: (40, 950)}}
    found = only(plan(SHIFT), Counted(signal=signal, **MET))

    assert found.verdict == "regressed"
    assert found.words.startswith("`yes` predicted by the canary alone")


def test_a_shift_can_be_proven_small() -> None:
    """Every bin has to be, either way."""
    many = {0.5: (5_000, 5_000)}
    signal = {"scores:a": many, "scores:b": many}
    rule = SHIFT | {"prove": 1.5}

    assert only(plan(rule), Counted(signal=signal, **MET)).verdict == "ok"
    signal = signal | {"scores:c": {0.5: (5, 5)}}
    assert only(plan(rule), Counted(signal=signal, **MET)).verdict == "undecided"


def test_predictions_of_one_version_alone_are_no_data() -> None:
    """There is nothing to compare."""
    found = only(plan(SHIFT), Counted(signal={"scores:0": {0.05: (9, 0)}}, **MET))

    assert found.verdict == "no_data"


AGREE = {"name": "agree", "metric": "shadow_agreement", "at_least": 0.97}


@pytest.mark.parametrize(
    ("shadow", "prove", "verdict"),
    [
        ({}, None, "no_data"),
        ({"agree": 980, "differ": 20}, None, "ok"),
        ({"agree": 900, "differ": 100}, None, "regressed"),
        ({"agree": 1_000, "failed": 30}, None, "regressed"),
        ({"agree": 1_000, "failed": 30, "production_failed": 30}, None, "ok"),
        ({"failed": 40}, None, "regressed"),
        ({"agree": 98, "differ": 2}, 2.0, "undecided"),
        ({"agree": 9_900, "differ": 100}, 2.0, "ok"),
        ({"agree": 9_900, "differ": 100, "failed": 2}, 2.0, "undecided"),
    ],
)
def test_copies_have_to_agree_and_not_to_fail(
    shadow: dict[str, int], prove: float | None, verdict: str
) -> None:
    """Both halves of the rule, and the proof where the plan asks for it."""
    rule = AGREE if prove is None else AGREE | {"prove": prove}

    assert only(plan(rule), Counted(shadow=shadow)).verdict == verdict


def test_agreement_is_told_in_a_sentence() -> None:
    """The share with its interval, failures, and what is proven."""
    found = only(plan(AGREE), Counted(shadow={"agree": 900, "differ": 100, "failed": 1}))

    assert found.unit == "copies"
    assert found.value == pytest.approx(0.9)
    assert found.words.startswith("900 of 1,000 copies agree (90.00%, between 8")
    assert found.words.endswith(
        "1 failed where production did not, 0 the other way: proven: less than 0.97 agree"
    )


LOSS = {"name": "quality", "metric": "label_loss", "loss": "brier", "abs_tolerance": 0.01}
KNOWN = MeanBounds(units=900, mean=0.02, low=0.012, high=0.03, log_e=4.0, log_proof=4.0)


@pytest.mark.parametrize(
    ("result", "prove", "verdict", "words"),
    [
        (None, None, "no_data", "no labels yet"),
        (RuleResult(missing="the log lacks it"), None, "no_data", "the log lacks it"),
        (RuleResult(), None, "no_data", "no labels of both"),
        (RuleResult(bounds=KNOWN), None, "regressed", "proven worse by more than 0.01"),
        (RuleResult(bounds=MeanBounds(units=9, mean=0.5)), None, "undecided", "too few yet"),
        (RuleResult(bounds=KNOWN, biased="few"), None, "undecided", "biased: few"),
        (
            RuleResult(bounds=msgspec.structs.replace(KNOWN, log_e=0.0)),
            None, "ok", "nothing is proven",
        ),
        (
            RuleResult(bounds=msgspec.structs.replace(KNOWN, log_e=0.0)),
            1.5, "ok", "proven below 1.5 ×",
        ),
        (
            RuleResult(bounds=msgspec.structs.replace(KNOWN, log_e=0.0, log_proof=2.0)),
            1.5, "undecided", "not yet proven below 1.5 ×",
        ),
    ],
)  # fmt: skip
def test_labels_are_judged(
    result: RuleResult | None, prove: float | None, verdict: str, words: str
) -> None:
    """A breach, a proof, neither; and never fine while labels come for one version only."""
    rule = LOSS if prove is None else LOSS | {"prove": prove}
    found = only(plan(rule), Counted(), labels={} if result is None else {"quality": result})

    assert found.verdict == verdict
    assert found.unit == "labels"
    assert words in found.words


def test_the_worst_slice_is_named() -> None:
    """In front of what it loses."""
    rule = LOSS | {"metric": "slice_gap"}
    result = RuleResult(bounds=KNOWN, slice="sex 2", canary_labels=300, production_labels=600)
    found = only(plan(rule), Counted(), labels={"quality": result})

    assert found.words == (
        "sex 2: mean loss +0.02 against production, between 0.012 and 0.03, after 300 and 600 "
        "labels: proven worse by more than 0.01"
    )


def test_a_limit_for_a_loss_compares_the_canarys_own() -> None:
    """Once there are labels enough."""
    rule = LOSS | {"test": "threshold", "at_most": 0.2}
    few, fine, beyond = (
        RuleResult(canary_labels=count, canary_mean=mean)
        for count, mean in ((99, 0.5), (100, 0.2), (100, 0.21))
    )
    found = [only(plan(rule), Counted(), labels={"quality": one}) for one in (few, fine, beyond)]

    assert [one.verdict for one in found] == ["no_data", "ok", "regressed"]


@pytest.mark.parametrize(
    ("metric", "test", "weight", "shadow", "learns"),
    [
        ("error_rate", "relative", 0, 25, False),
        ("error_rate", "relative", 5, 0, True),
        ("error_rate", "relative", 100, 0, False),
        ("error_rate", "threshold", 100, 0, True),
        ("shadow_agreement", "relative", 0, 25, True),
        ("shadow_agreement", "relative", 5, 0, False),
        ("label_loss", "relative", 0, 25, True),
    ],
)
def test_a_step_waits_for_nothing_that_cannot_come(
    metric: str, test: str, weight: float, shadow: float, *, learns: bool
) -> None:
    """Copies tell of agreement, requests that were drawn of everything else."""
    [rule] = plan({"name": "a", "metric": metric, "test": test}).guardrails.rules

    assert learns_in(rule, weight=weight, shadow=shadow) == learns
