from typing import Any

import pytest
from rollout_admin_kit import rule, standing

from serving.cli.rollout.words import (
    bar,
    changes,
    counts,
    effect,
    estimate,
    glance,
    happened,
    number,
    step_words,
    sums,
)
from serving.rollout.state import TRANSITIONS, Event


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (-1.0, "░░░░░░   0 %"),
        (0.0, "░░░░░░   0 %"),
        (0.45, "██░░░░  45 %"),
        (0.999, "█████░  99 %"),
        (1.0, "██████ 100 %"),
    ],
)
def test_only_what_is_proven_is_a_full_bar(share: float, shown: str) -> None:
    """Almost is shown as almost."""
    assert bar(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1.0, "1"), (1.6234, "1.62"), (0.000123, "0.00012"), (1234.5, "1,234")],
)
def test_a_number_has_the_digits_that_count(value: float, shown: str) -> None:
    """No more than an interval is good for."""
    assert number(value) == shown


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "1.02 [0.61, 1.72]"),
        ({"high": None}, "1.02 [≥ 0.61]"),
        ({"low": None}, "1.02 [≤ 1.72]"),
        ({"value": None}, "[0.61, 1.72]"),
        ({"value": None, "low": None, "high": None}, "–"),
        ({"value": None, "low": 0.0, "high": None}, "–"),
        ({"metric": "label_loss", "value": 0.5, "low": -0.2, "high": 0.9}, "+0.5 [-0.2, 0.9]"),
        ({"test": "threshold", "value": 0.08, "low": None, "high": None}, "0.08"),
    ],
)  # fmt: skip
def test_an_estimate_stands_with_its_interval(fields: dict[str, Any], shown: str) -> None:
    """Ends that nobody knows are left open; a difference has a sign."""
    assert estimate(rule(**fields)) == shown


def test_counts_are_events_of_units() -> None:
    """Without units there is no rate to speak of."""
    assert counts(12, 1203) == "12 / 1,203"
    assert counts(0, 0) == "–"


def test_what_was_counted_names_both_versions() -> None:
    """And nothing that was not."""
    told = standing(canary_requests=1200, canary_keys=900, production_requests=24000, copies=7)

    assert sums(told) == ("v2 answered 1,200 requests of 900 keys, v1 24,000 of 0; 7 copies")
    assert sums(standing()) == ""


@pytest.mark.parametrize(
    ("verb", "fields", "says"),
    [
        ("promote", {}, "v2 goes on to step 3 of 4, approval of fraud-ml now. Not proven: errors."),
        ("promote", {"phase": "pending", "step": 0}, "goes on to step 1 of 4, shadow 25 % now"),
        ("promote", {"step": 3, "rules": []}, "v2 goes on to every request now."),
        ("pause", {}, "v2 keeps 5 % of keys, and nothing goes further until"),
        ("pause", {"weight": 0.0, "shadow": 25.0}, "v2 keeps copies of 25 % of requests"),
        ("pause", {"weight": 0.0}, "v2 keeps no traffic"),
        ("resume", {}, "v2 keeps 5 % of keys and goes on from step 2 of 4: weight 5 %."),
        (
            "resume",
            {"rules": [rule(verdict="regressed")]},
            "What paused it (errors) pauses it no more.",
        ),
        ("approve", {"step": 2}, "v2 goes on to step 4 of 4, weight 100 %."),
        ("abort", {}, "Every request goes to v1 within a second; v2 gets none."),
        ("retry", {}, "A new rollout of v2 begins with shadow 25 %, although demo-r3 was stopped."),
    ],
)
def test_a_verb_says_what_it_does_to_traffic(verb: str, fields: dict[str, Any], says: str) -> None:
    """Before anybody says yes."""
    assert says in effect(verb, standing(**fields))


def test_all_the_way_says_that_steps_are_skipped() -> None:
    """And what was not proven by then; rules that decide nothing are not named."""
    told = standing(rules=[rule(), rule(name="tried", dry_run=True)])

    assert effect("promote", told, full=True) == (
        "v2 answers every request from now on, v1 none; steps that are left are skipped. "
        "Not proven: errors."
    )


def test_every_kind_of_event_has_words() -> None:
    """A history of identifiers is no history."""
    kinds = {kind for events in TRANSITIONS.values() for kind in events}
    told = {
        kind: happened(Event(revision=1, at=0.0, kind=kind, who="ada", step=1)) for kind in kinds
    }

    assert told["stepped"] == "went to step 2"
    assert all(" " in words or words == "began" for words in told.values())


def test_what_is_new_is_a_line_each() -> None:
    """A step, a phase, a verdict; what stayed is not said again."""
    before = standing()
    after = standing(
        phase="paused", reason="errors", rules=[rule(verdict="regressed", words="3 times as many")]
    )

    assert changes(None, before) == [
        "progressing, step 2 of 4: weight 5 %",
        "errors is undecided: 1.02 [0.61, 1.72]",
    ]
    assert changes(before, standing()) == []
    assert changes(before, after) == [
        "paused, step 2 of 4: weight 5 % (errors)",
        "errors is regressed: 3 times as many",
    ]


def test_a_glance_names_the_step_and_the_verdicts() -> None:
    """And the command that shows more."""
    assert glance(standing()) == (
        "demo: v1 → v2, progressing, step 2 of 4: weight 5 %, errors undecided; "
        "`sluice rollout status demo`"
    )


def test_a_step_beyond_the_plan_is_still_told() -> None:
    """A plan may have been shortened under it."""
    assert step_words(standing(step=9)) == "step 10"
