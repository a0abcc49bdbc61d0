"""Control is killed at every transition of a rollout: none is repeated, none is left out."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rollout_process_kit import Home
from waiting_kit import until

from serving.config.snapshot import RolloutTraffic
from serving.rollout.state import Event, replayed

ROLLOUT: dict[str, Any] = {
    "canary": "v2",
    "steps": [
        {"weight": 5, "bake": {"min": "300ms", "min_samples": 100}},
        {"weight": 25, "bake": {"min": "300ms", "min_samples": 500}},
        {"weight": 100, "bake": {"min": "300ms"}},
    ],
    "guardrails": {
        "rules": [{"name": "errors", "metric": "error_rate", "tolerance": 1.5}],
        "hard_stops": {"consecutive_errors": 0},
    },
}
PROMOTED = ["started", "stepped", "stepped", "stepped", "promoting", "done"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A data directory whose control is not started yet."""
    made = Home(tmp_path, ROLLOUT)
    yield made
    made.close()


def in_place(event: Event, events: list[Event]) -> tuple[float, str]:
    """Weight and production that an event, with those before it, puts in place."""
    state = replayed("demo-r1", "demo", events[: event.revision])
    if state.phase == "done":
        return 0.0, state.canary
    return state.weight, state.production


def assert_sound(home: Home, kinds: list[str]) -> None:
    """Events without a gap, each once; traffic never ahead of them; each in the audit log."""
    events = home.events
    assert [event.kind for event in events] == kinds
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    steps = [event.step for event in events if event.kind == "stepped"]
    assert steps == list(range(len(steps))), "a step was repeated or left out"
    assert all(event.evidence for event in events), "something moved without evidence"
    for put in home.published():
        assert (put.weight, put.production) == in_place(events[put.revision - 1], events)
    assert {revision for _, revision in home.audited()} == {event.revision for event in events}


def weights(published: list[RolloutTraffic]) -> list[float]:
    """Percent of keys that got the canary's answers, in whichever way."""
    return [100.0 if put.production == put.canary else put.weight for put in published]


def test_killed_at_every_transition_it_is_done_all_the_same(home: Home) -> None:
    """As soon as an event stands on the disk control is gone; the next one carries it out."""
    for number in range(1, len(PROMOTED) + 1):
        home.start()
        home.wait_for_line(number)
        home.kill()
        assert home.lines == number
    home.start()
    until(lambda: [put.production for put in home.published()][-1:] == ["v2"], "it is published")
    until(lambda: len(home.audited()) >= len(PROMOTED), "it is audited")

    assert_sound(home, PROMOTED)
    told = weights(home.published())
    assert told == sorted(told), "the weight went back"


def test_killed_while_it_aborts_it_is_aborted(home: Home) -> None:
    """Also between the decision and its publication; and nothing begins again by itself."""
    home.start()
    home.wait_for_line(2)
    home.worker.bad = True
    for number in (3, 4):
        home.wait_for_line(number)
        home.kill()
        home.start()
    until(lambda: len(home.audited()) >= 4, "it is audited")
    until(lambda: home.ask("GET", "/api/v1/rollouts/demo")[0] == 200, "control answers")

    assert_sound(home, ["started", "stepped", "aborting", "aborted"])
    assert weights(home.published())[-1] == 0.0
    assert "`errors`" in home.events[2].reason
    status, standing = home.ask("GET", "/api/v1/rollouts/demo")
    assert (status, standing["id"], standing["phase"]) == (200, "demo-r1", "aborted")


def test_killed_at_any_moment_nothing_is_repeated(home: Home) -> None:
    """Twelve times, at moments drawn with a fixed seed; then it is left to end."""
    generator = random.Random(6)
    for _ in range(12):
        home.kill_at_random(generator, 0.6)
    home.start()
    home.wait_for("done")
    until(lambda: [put.production for put in home.published()][-1:] == ["v2"], "it is published")
    until(lambda: ("rollout done", len(PROMOTED)) in home.audited(), "it is audited")

    assert_sound(home, PROMOTED)
    told = weights(home.published())
    assert told == sorted(told), "the weight went back"
