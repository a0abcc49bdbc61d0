from typing import Any

import msgspec
import pytest

from serving.config.schema import RolloutConfig
from serving.config.snapshot_codec import dec_hook
from serving.rollout.baking import SILENCE_SECONDS, Facts, Look, lacking
from serving.rollout.decide import decide, forward, to_the_end
from serving.rollout.standing import RuleStanding
from serving.rollout.state import Event, RolloutState, after

BEGAN = 1_000.0


def plan(**more: Any) -> RolloutConfig:
    """Shadow, 5 %, approval, 100 %, each step of a minute; read as from YAML, so bounds hold."""
    body = {
        "canary": "v2",
        "steps": [
            {"shadow": 25, "bake": {"min": "1m", "min_samples": 10}},
            {"weight": 5, "bake": {"min": "1m", "max": "10m", "min_samples": 10}},
            {"approve": {"group": "ml", "timeout": "1h"}},
            {"weight": 100, "bake": {"min": "1m"}},
        ],
        "guardrails": {
            "rules": [
                {"name": "errors", "metric": "error_rate", "tolerance": 1.5, "prove": 2.0},
                {"name": "scores", "metric": "prediction_shift", "tolerance": 1.5},
            ]
        },
        **more,
    }
    return msgspec.convert(body, RolloutConfig, dec_hook=dec_hook)


def guarded(**more: Any) -> RolloutConfig:
    """The same with other guardrails."""
    rules = msgspec.to_builtins(plan().guardrails.rules, enc_hook=float)
    return plan(
        guardrails={
            "rules": [{k: v for k, v in rule.items() if k in _KEPT} for rule in rules],
            **more,
        }
    )


_KEPT = ("name", "metric", "tolerance", "prove")


def at_step(step: int, phase: Any = "progressing", **more: Any) -> RolloutState:
    """A rollout at a step that began at `BEGAN`."""
    weight, shadow = [(0.0, 25.0), (5.0, 0.0), (5.0, 0.0), (100.0, 0.0)][step]
    state = RolloutState(
        id="demo-r1", model="demo", phase=phase, step=step, revision=5, step_began=BEGAN,
        weight=weight, shadow=shadow, canary="v2", production="v1",
    )  # fmt: skip
    return msgspec.structs.replace(state, **more)


def rule(
    name: str = "errors", verdict: Any = "ok", action: str = "abort", **more: Any
) -> RuleStanding:
    """What a rule says."""
    return RuleStanding(
        name=name, metric="error_rate", test="relative", verdict=verdict, action=action,
        words="is more frequent", **more,
    )  # fmt: skip


def look(
    state: RolloutState, *rules: RuleStanding, config: RolloutConfig | None = None, **facts: Any
) -> Look:
    """Two minutes into the step, with plenty of evidence and everything in order."""
    known = {
        "now": BEGAN + 120, "samples": 500, "copies": 500, "keys": 100, "production_samples": 9_000,
        "last_data": facts.get("now", BEGAN + 120),
    }  # fmt: skip
    return Look(
        config=config or plan(),
        state=state,
        standings=rules or (rule(), rule("scores", "undecided", "pause")),
        facts=Facts(**{**known, **facts}),
    )


def kind_of(found: Event | None) -> str:
    """What an event is; empty for none."""
    return found.kind if found is not None else ""


# --- the whole table ------------------------------------------------------------------------

BREACH = rule(verdict="regressed")
SHIFT = rule("scores", "regressed", "pause")
HARM: dict[str, tuple[list[RuleStanding], dict[str, Any]]] = {
    "nothing": ([], {}),
    "breach": ([BREACH], {}),
    "pausing breach": ([SHIFT], {}),
    "hard stop": ([], {"tripped": "5 errors in a row in worker-0"}),
    "quarantine": ([], {"quarantined": "crashed twice"}),
    "split": ([], {"split": "the canary got 9 % instead of 5 %"}),
}
TABLE = {
    # phase: (nothing, breach, pausing breach, hard stop, quarantine, split)
    "pending": ("stepped", "aborting", "stepped", "aborting", "aborting", "stepped"),
    "progressing": ("stepped", "aborting", "paused", "aborting", "aborting", "paused"),
    "paused": ("", "aborting", "", "aborting", "aborting", ""),
    "awaiting_approval": ("", "aborting", "paused", "aborting", "aborting", "paused"),
    "aborting": ("aborted",) * 6,
    "promoting": ("done", "aborting", "done", "aborting", "aborting", "done"),
    "aborted": ("",) * 6,
    "done": ("",) * 6,
}


@pytest.mark.parametrize("phase", TABLE)
@pytest.mark.parametrize("harm", HARM)
def test_every_phase_answers_every_harm(phase: Any, harm: str) -> None:
    """What follows in each phase from each thing that can go wrong, everything else in order."""
    rules, facts = HARM[harm]
    step = 2 if phase == "awaiting_approval" else 1
    state = at_step(step, phase, paused_at=BEGAN + 60 if phase == "paused" else None)
    rules = [rule(), *rules] if harm == "pausing breach" else rules or [rule()]

    found = decide(look(state, *rules, acknowledged=True, **facts))
    assert kind_of(found) == TABLE[phase][list(HARM).index(harm)]


@pytest.mark.parametrize("phase", TABLE)
@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("silent", [{"store_up": False}, {"workers": 0}], ids=["store", "workers"])
def test_in_silence_only_harm_moves_anything(phase: Any, harm: str, silent: dict[str, Any]) -> None:
    """With the store or all workers away a rollout holds; what is proven still aborts it."""
    rules, facts = HARM[harm]
    step = 2 if phase == "awaiting_approval" else 1
    found = decide(look(at_step(step, phase), *(rules or [rule()]), **facts, **silent))

    assert kind_of(found) in ("", "aborting", "paused")
    assert (kind_of(found) == "paused") == (
        harm == "pausing breach" and phase in ("progressing", "awaiting_approval")
    )


@pytest.mark.parametrize("phase", TABLE)
@pytest.mark.parametrize("harm", HARM)
def test_what_is_decided_can_always_follow(phase: Any, harm: str) -> None:
    """No decision is one that the table of events refuses, and its revision is the next."""
    rules, facts = HARM[harm]
    state = at_step(2 if phase == "awaiting_approval" else 1, phase)
    found = decide(look(state, *(rules or [rule()]), acknowledged=True, **facts))

    if found is not None:
        assert after(state, found).revision == 6


# --- baking ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "rules"),
    [
        ({"now": BEGAN + 59}, ()),
        ({"samples": 9}, ()),
        ({}, (rule(verdict="undecided", proof=0.4),)),
        ({}, (rule(verdict="no_data"),)),
        ({}, (rule("scores", "ok"),)),
        ({"not_ready": "v2 in worker-0: loading"}, ()),
    ],
    ids=["time", "samples", "proof", "no data", "unjudged", "not ready"],
)
def test_a_step_waits_for_everything_it_asks_for(
    facts: dict[str, Any], rules: tuple[RuleStanding, ...]
) -> None:
    """One of them missing is enough to stay, and it is named."""
    here = look(at_step(1), *rules, **facts)

    assert decide(here) is None
    assert len(lacking(here)) == 1


def test_keys_and_labels_are_waited_for() -> None:
    """`min_keys` and `require_labels` are of the whole rollout."""
    steps = [{"weight": 5, "bake": {"min_keys": 50, "require_labels": 20}}, {"weight": 100}]
    config = plan(steps=steps)

    assert decide(look(at_step(0, weight=5.0), config=config, keys=49, labels=20)) is None
    assert decide(look(at_step(0, weight=5.0), config=config, keys=50, labels=19)) is None
    found = decide(look(at_step(0, weight=5.0), config=config, keys=50, labels=20))
    assert kind_of(found) == "stepped"


def test_samples_are_those_of_the_step() -> None:
    """What an earlier step has counted is no evidence of this one."""
    state = at_step(1, counted={"samples": 495})

    assert decide(look(state, samples=500)) is None
    assert kind_of(decide(look(state, samples=505))) == "stepped"


def test_a_shadow_step_counts_copies() -> None:
    """Nobody is answered by the new version there."""
    assert decide(look(at_step(0), copies=9, samples=0)) is None
    assert kind_of(decide(look(at_step(0), copies=10, samples=0))) == "stepped"


def test_the_next_step_says_what_it_puts_in_place_and_why() -> None:
    """Weight, copies, what was counted so far, and every rule's numbers."""
    found = decide(look(at_step(0)))

    assert found is not None
    assert (found.step, found.weight, found.shadow) == (1, 5.0, 0.0)
    assert found.counted == {"samples": 500, "copies": 500}
    assert found.who == "controller"
    assert found.evidence["requests"].startswith("500 of the new version")
    assert {"errors", "scores"} <= found.evidence.keys()


def test_an_approval_leaves_traffic_as_it_is() -> None:
    """The step before it goes on meanwhile."""
    found = decide(look(at_step(1)))

    assert found is not None
    assert (found.step, found.asks, found.weight, found.shadow) == (2, True, 5.0, 0.0)


def test_an_approved_step_goes_on_at_once() -> None:
    """`approved` makes it progressing; nothing else is asked of it."""
    found = decide(look(at_step(2), samples=0, now=BEGAN))

    assert found is not None
    assert (found.kind, found.step, found.weight, found.reason) == ("stepped", 3, 100.0, "approved")


def test_the_last_step_needs_no_requests_to_compare() -> None:
    """At 100 % production gets none: time and what is proven already decide."""
    state = at_step(3, counted={"samples": 500})

    assert kind_of(decide(look(state, now=BEGAN + 59))) == ""
    assert kind_of(decide(look(state, now=BEGAN + 60, last_data=None))) == "promoting"


def test_a_weight_never_falls() -> None:
    """Also if somebody has edited the steps meanwhile."""
    config = plan(steps=[{"weight": 20}, {"weight": 10}, {"weight": 100}])

    assert (
        forward(look(at_step(0, weight=20.0), config=config), who="ann", reason="").weight == 20.0
    )


def test_time_in_a_pause_is_no_baking() -> None:
    """50 s of baking and an hour of pause are 50 s."""
    state = at_step(1, held=3600.0)

    assert decide(look(state, now=BEGAN + 3650)) is None
    assert kind_of(decide(look(state, now=BEGAN + 3660))) == "stepped"


def test_a_clock_that_goes_back_lets_nothing_through() -> None:
    """Less than no time has passed."""
    assert decide(look(at_step(1), now=BEGAN - 500)) is None


# --- no data --------------------------------------------------------------------------------


def test_without_traffic_a_step_holds_for_ever() -> None:
    """Neither time nor `bake.max` make a pass or a failure out of nothing."""
    state = at_step(1)

    for inconclusive in ("pause", "abort", "promote"):
        config = guarded(on_inconclusive=inconclusive)
        for now in (BEGAN + 100, BEGAN + 601, BEGAN + 1e6):
            assert decide(look(state, config=config, now=now, samples=0, last_data=BEGAN)) is None


def test_a_step_whose_traffic_stops_holds() -> None:
    """It had all it asked for, but nothing says how it is now."""
    state, now = at_step(1), BEGAN + 500
    quiet = now - SILENCE_SECONDS - 1

    assert decide(look(state, now=now, last_data=quiet)) is None
    assert kind_of(decide(look(state, now=now, last_data=now - 1))) == "stepped"


def test_no_data_can_pause_and_a_resume_gives_it_time_again() -> None:
    """`on_no_data: pause`, counted from when something came, the step began, or it went on."""
    config, now = guarded(on_no_data="pause"), BEGAN + 1000
    found = decide(look(at_step(1), config=config, now=now, last_data=BEGAN))

    assert found is not None
    assert (found.kind, found.cause) == ("paused", "no_data")
    resumed = at_step(1, resumed_at=now - 10)
    assert decide(look(resumed, config=config, now=now, last_data=BEGAN, samples=0)) is None


# --- breaches -------------------------------------------------------------------------------


def test_a_breach_says_which_rule_and_takes_everything_back() -> None:
    """The event alone tells why, and workers get 0 %."""
    found = decide(look(at_step(1), BREACH))

    assert found is not None
    assert (found.kind, found.cause, found.rules) == ("aborting", "breach", ["errors"])
    assert (found.weight, found.shadow) == (0.0, 0.0)
    assert found.reason == "`errors` is more frequent"


def test_an_abort_goes_before_a_pause() -> None:
    """Both are proven: the graver one counts."""
    assert kind_of(decide(look(at_step(1), SHIFT, BREACH))) == "aborting"


def test_a_dry_run_decides_nothing() -> None:
    """Neither its breach nor its missing proof."""
    dry = rule(verdict="regressed", dry_run=True)

    assert kind_of(decide(look(at_step(1), dry, config=guarded(dry_run=["errors"])))) == "stepped"


def test_a_waived_rule_pauses_no_more() -> None:
    """A person has seen it and gone on; a rule that aborts cannot be waived."""
    state = at_step(1, waived=["scores", "errors", "sample_ratio"])

    assert kind_of(decide(look(state, rule(), SHIFT, split="9 %"))) == "stepped"
    assert kind_of(decide(look(state, BREACH))) == "aborting"


# --- bake.max and approvals -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "kind"), [("pause", "paused"), ("abort", "aborting"), ("promote", "stepped")]
)
def test_at_the_end_of_its_time_the_plan_decides(verdict: str, kind: str) -> None:
    """`bake.max` over, something came, and the proof is missing."""
    undecided = rule(verdict="undecided")
    config = guarded(on_inconclusive=verdict)

    assert decide(look(at_step(1), undecided, config=config, now=BEGAN + 599)) is None
    found = decide(look(at_step(1), undecided, config=config, now=BEGAN + 600))
    assert found is not None
    assert found.kind == kind
    assert "the proof of `errors`" in found.reason


def test_a_version_that_cannot_answer_is_not_promoted_for_want_of_proof() -> None:
    """`on_inconclusive: promote` is about proof, not about being there."""
    config = guarded(on_inconclusive="promote")
    here = look(at_step(1), config=config, now=BEGAN + 900, not_ready="v2: loading")

    assert decide(here) is None


def test_after_an_inconclusive_pause_there_is_as_much_time_again() -> None:
    """Else a resume would be followed by a pause at once."""
    undecided = rule(verdict="undecided")
    state = at_step(1, extended=600.0)

    assert decide(look(state, undecided, now=BEGAN + 1199)) is None
    assert kind_of(decide(look(state, undecided, now=BEGAN + 1200))) == "paused"


@pytest.mark.parametrize(("on_timeout", "kind"), [("abort", "aborting"), ("pause", "paused")])
def test_an_approval_that_nobody_gives_ends(on_timeout: str, kind: str) -> None:
    """As the step says, and not before its time."""
    approve = {"timeout": "1h", "on_timeout": on_timeout}
    config = plan(steps=[{"approve": approve}, {"weight": 100}])
    state = at_step(0, "awaiting_approval")

    assert decide(look(state, config=config, now=BEGAN + 3599)) is None
    found = decide(look(state, config=config, now=BEGAN + 3600))
    assert found is not None
    assert (found.kind, found.cause) == (kind, "approval")


# --- ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["aborting", "promoting"])
def test_nothing_is_over_before_every_worker_has_it(phase: Any) -> None:
    """Acknowledged by all that live, and the store must have said so."""
    state = at_step(3, phase)

    assert decide(look(state, acknowledged=False)) is None
    assert decide(look(state, acknowledged=True, store_up=False)) is None
    assert kind_of(decide(look(state, acknowledged=True))) in ("aborted", "done")


def test_the_first_step_waits_for_the_new_version() -> None:
    """A canary that a worker has not loaded gets nothing."""
    state = at_step(0, "pending", weight=0.0, shadow=0.0)

    assert decide(look(state, not_ready="v2 in worker-1: loading")) is None
    found = decide(look(state))
    assert found is not None
    assert (found.step, found.shadow, found.weight) == (0, 25.0, 0.0)


def test_everything_at_once_passes_all_steps() -> None:
    """`promote --full`."""
    found = to_the_end(look(at_step(0)), who="ann", reason="tried elsewhere")

    assert (found.kind, found.weight, found.shadow, found.who) == ("promoting", 100.0, 0.0, "ann")
