from typing import Any

import msgspec
import notice_kit
import pytest
from notice_kit import happened, standing

from serving.config.schema import NotifyConfig
from serving.control.rollouts.notice_event import event_of, names_of
from serving.rollout.state import TRANSITIONS, Kind


def decoded(kind: Kind, *, event: dict[str, Any], **fields: Any) -> Any:
    """The CloudEvent of something that happened."""
    what, where = happened(4, kind, **event), standing(**fields)
    names = names_of(what, where)
    return msgspec.json.decode(
        event_of(what, where, notice_kit.plan(), names=names, source=notice_kit.SOURCE)
    )


@pytest.mark.parametrize(
    ("kind", "phase", "names"),
    [
        ("started", "pending", ("started",)),
        ("stepped", "progressing", ("advanced",)),
        ("stepped", "awaiting_approval", ("approval_needed", "advanced")),
        ("paused", "paused", ("paused",)),
        ("resumed", "progressing", ("resumed",)),
        ("approved", "progressing", ("resumed",)),
        ("promoting", "promoting", ("advanced",)),
        ("aborting", "aborting", ("aborted",)),
        ("aborted", "aborted", ()),
        ("superseded", "aborted", ("aborted",)),
        ("superseded", "done", ()),
        ("done", "done", ("completed",)),
        ("frozen", "progressing", ()),
    ],
)
def test_what_happened_has_a_name_in_the_configuration(
    kind: Kind, phase: str, names: tuple[str, ...]
) -> None:
    """An abort is told once, when it is decided."""
    assert names_of(happened(4, kind), standing(phase=phase)) == names


def test_every_kind_of_event_was_looked_at() -> None:
    """A new kind is a decision, not an oversight."""
    kinds = {kind for events in TRANSITIONS.values() for kind in events}
    told = {kind for kind in kinds if names_of(happened(4, kind), standing(phase="progressing"))}

    assert kinds - told == {"aborted", "frozen"}


def test_every_name_of_the_configuration_is_used() -> None:
    """Nobody waits for something that is never told."""
    events = NotifyConfig.__annotations__["events"]
    possible = set(msgspec.json.schema(events)["items"]["enum"])

    assert possible == set(notice_kit.EVERYTHING)


@pytest.mark.parametrize("kind", ["paused", "aborting", "promoting", "stepped"])
def test_a_step_that_ran_out_of_time_is_told_as_such_too(kind: Kind) -> None:
    """Whatever comes of it; its own name is first, since it is what happened."""
    names = names_of(happened(4, kind, cause="inconclusive"), standing(phase="progressing"))

    assert len(names) == 2
    assert names[1] == "inconclusive"
    assert "inconclusive" not in names_of(happened(4, kind, cause="breach"), standing())


def test_a_notice_is_a_cloud_event_that_says_what_a_person_needs() -> None:
    """Who, why, on what evidence, where the traffic is, and what may be done."""
    told = decoded("paused", event={"reason": "scores", "evidence": {"scores": "e 40 of 20"}})
    data = told.pop("data")

    assert told == {
        "specversion": "1.0",
        "id": "demo-r1.4",
        "source": "http://127.0.0.1:8002",
        "type": "dev.sluice.rollout.paused",
        "subject": "demo",
        "time": "2023-11-14T22:13:24.000Z",
        "datacontenttype": "application/json",
    }
    assert (data["who"], data["reason"], data["evidence"]) == (
        "ada",
        "scores",
        {"scores": "e 40 of 20"},
    )
    assert (data["step"], data["weight"], data["canary"], data["production"]) == (2, 5, "v2", "v1")
    assert data["rules"][0]["verdict"] == "regressed"
    assert data["command"] == "sluice rollout resume demo"


def test_an_approval_says_who_is_asked_and_until_when() -> None:
    """An hour from when it was reached, here."""
    told = decoded("stepped", event={}, phase="awaiting_approval", step=2)

    assert told["type"] == "dev.sluice.rollout.approval_needed"
    assert told["data"]["group"] == "fraud-ml"
    assert told["data"]["answer_by"] == "2023-11-14T23:13:24.000Z"
    assert told["data"]["command"] == "sluice rollout approve demo"
