from typing import get_args

import msgspec
import pytest

from serving.rollout.state import (
    LIVE,
    TRANSITIONS,
    Arms,
    Event,
    IllegalEvent,
    Kind,
    Phase,
    RolloutState,
    after,
    replayed,
)

PHASES: tuple[Phase, ...] = get_args(Phase)
KINDS: tuple[Kind, ...] = get_args(Kind)

EXPECTED: dict[tuple[str, str], tuple[str, ...]] = {
    ("pending", "stepped"): ("progressing", "awaiting_approval"),
    ("pending", "aborting"): ("aborting",),
    ("pending", "superseded"): ("aborted",),
    ("progressing", "stepped"): ("progressing", "awaiting_approval"),
    ("progressing", "paused"): ("paused",),
    ("progressing", "promoting"): ("promoting",),
    ("progressing", "aborting"): ("aborting",),
    ("progressing", "superseded"): ("aborted",),
    ("progressing", "frozen"): ("progressing",),
    ("paused", "resumed"): ("progressing", "awaiting_approval"),
    ("paused", "stepped"): ("progressing", "awaiting_approval"),
    ("paused", "promoting"): ("promoting",),
    ("paused", "aborting"): ("aborting",),
    ("paused", "superseded"): ("aborted",),
    ("paused", "frozen"): ("paused",),
    ("awaiting_approval", "approved"): ("progressing",),
    ("awaiting_approval", "stepped"): ("progressing", "awaiting_approval"),
    ("awaiting_approval", "paused"): ("paused",),
    ("awaiting_approval", "promoting"): ("promoting",),
    ("awaiting_approval", "aborting"): ("aborting",),
    ("awaiting_approval", "superseded"): ("aborted",),
    ("awaiting_approval", "frozen"): ("awaiting_approval",),
    ("aborting", "aborted"): ("aborted",),
    ("aborting", "superseded"): ("aborted",),
    ("promoting", "done"): ("done",),
    ("promoting", "aborting"): ("aborting",),
    ("promoting", "superseded"): ("aborted",),
    ("done", "superseded"): ("done",),
}
"""Everything that may follow, written down once more by hand."""


def event(kind: Kind, revision: int, at: float = 100.0, **more: object) -> Event:
    """An event of the controller's."""
    made = Event(revision=revision, at=at, kind=kind, who="controller")
    return msgspec.structs.replace(made, **more)


def begun(phase: Phase, **more: object) -> RolloutState:
    """A rollout in some phase, at revision 5."""
    state = RolloutState(id="demo-r1", model="demo", phase=phase, revision=5, step_began=50.0)
    return msgspec.structs.replace(state, **more)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_pair_leads_where_the_table_says_or_is_refused(phase: Phase, kind: Kind) -> None:
    """Each phase with each event: the one right phase, or an error and nothing changed."""
    state = begun(phase, paused_at=60.0 if phase == "paused" else None)
    expected = EXPECTED.get((phase, kind))
    if expected is None:
        with pytest.raises(IllegalEvent):
            after(state, event(kind, 6))
        return

    assert after(state, event(kind, 6)).phase == expected[0]
    assert after(state, event(kind, 6, asks=True)).phase == expected[-1]


def test_the_table_has_every_phase_and_its_live_ones_can_be_ended() -> None:
    """Whatever is live can be aborted or comes to an end by itself."""
    assert set(TRANSITIONS) == set(PHASES)
    assert set(PHASES) - {"aborted", "done"} == LIVE
    assert all({"aborting", "aborted"} & set(TRANSITIONS[phase]) for phase in LIVE)


@pytest.mark.parametrize("revision", [4, 5, 7])
def test_a_revision_out_of_order_is_refused(revision: int) -> None:
    """Neither twice nor with a gap."""
    with pytest.raises(IllegalEvent, match="after revision 5"):
        after(begun("progressing"), event("paused", revision))


def test_a_rollout_begins_with_started_and_only_once() -> None:
    """Nothing comes before it, and it comes once."""
    new = RolloutState(id="demo-r1", model="demo")
    with pytest.raises(IllegalEvent, match="can be started"):
        after(new, event("stepped", 1))
    with pytest.raises(IllegalEvent):
        after(after(new, event("started", 1)), event("started", 2))


def test_started_says_who_takes_part() -> None:
    """Versions, their files, the salt and what the file said stand in the state for good."""
    arms = Arms(
        canary="v2", production="v1", canary_sha256="b", production_sha256="a",
        file_production="v0", salt="demo/r1", steps=["weight 5 %"],
    )  # fmt: skip
    state = replayed(
        "demo-r1",
        "demo",
        [event("started", 1, at=7.0, arms=arms), event("stepped", 2, weight=5.0)],
    )

    assert (state.canary, state.production, state.salt) == ("v2", "v1", "demo/r1")
    assert (state.file_production, state.steps, state.began) == ("v0", ["weight 5 %"], 7.0)


def test_a_pause_does_not_count_as_baking() -> None:
    """Ten seconds of baking, a hundred of pause, five more: fifteen have baked."""
    state = begun("progressing", step_began=100.0)
    state = after(state, event("paused", 6, at=110.0))
    assert state.baked(200.0) == 10.0
    state = after(state, event("resumed", 7, at=210.0))

    assert state.baked(215.0) == 15.0


def test_a_step_begins_with_no_time_held() -> None:
    """What an earlier step was paused for is not taken from the next."""
    state = begun("paused", paused_at=60.0, held=30.0)
    state = after(state, event("stepped", 6, at=100.0, step=1))

    assert (state.held, state.paused_at, state.step, state.baked(104.0)) == (0.0, None, 1, 4.0)


def test_going_on_waives_what_it_was_paused_for() -> None:
    """A person has seen it; an abort waives nothing."""
    paused = after(begun("progressing"), event("paused", 6, cause="breach", rules=["scores"]))

    assert after(paused, event("resumed", 7)).waived == ["scores"]
    assert after(paused, event("stepped", 7)).waived == ["scores"]
    assert after(paused, event("aborting", 7)).waived == []


def test_a_resumed_rollout_gets_another_longest_time() -> None:
    """Paused because `bake.max` was over, it would else be paused again at once."""
    state = begun("progressing", step_began=100.0)
    state = after(state, event("paused", 6, at=160.0, cause="inconclusive"))
    state = after(state, event("resumed", 7, at=500.0))

    assert state.extended == 60.0
    assert state.baked(510.0) - state.extended == 10.0


def test_frozen_adds_and_moves_nothing() -> None:
    """Bounds come beside those there are; the reason shown stays that of the last move."""
    state = begun("progressing", latency_bounds={"slow": [0.1]}, reason="the step began")
    new = after(state, event("frozen", 6, latency_bounds={"other": [0.2]}, reason="bounds"))

    assert new.latency_bounds == {"slow": [0.1], "other": [0.2]}
    assert (new.phase, new.reason, new.revision) == ("progressing", "the step began", 6)


def test_why_it_was_aborted_outlives_the_abort() -> None:
    """`aborted` says only that everybody has it."""
    state = after(begun("progressing"), event("aborting", 6, cause="breach", reason="errors"))
    state = after(state, event("aborted", 7, at=130.0, reason="every worker has it"))

    assert (state.reason, state.cause, state.ended_at) == ("errors", "breach", 130.0)


def test_events_add_up_to_the_same_state_after_a_round_trip() -> None:
    """What the log writes is what it reads."""
    events = [
        event("started", 1, arms=Arms(canary="v2", production="v1")),
        event("stepped", 2, weight=5.0, shadow=0.0, counted={"samples": 0}),
        event("paused", 3, cause="no_data"),
        event("resumed", 4),
    ]
    lines = [msgspec.json.encode(one) for one in events]

    read = [msgspec.json.decode(line, type=Event) for line in lines]
    assert replayed("demo-r1", "demo", read) == replayed("demo-r1", "demo", events)
