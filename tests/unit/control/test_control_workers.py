from typing import Any

from serving.config.keys import WorkerReport
from serving.control.fleet.workers import acknowledgements, is_settled, state_of

NOW = 1_000.0


def report(worker: str = "worker-0", **more: Any) -> WorkerReport:
    """A worker that serves revision 4."""
    known: dict[str, Any] = {"state": "ready", "revision": 4, "reported_at": NOW - 1}
    return WorkerReport(worker=worker, **{**known, **more})


def test_a_worker_that_stopped_reporting_is_silent() -> None:
    """Whatever it last said, an old report says that it is gone."""
    assert state_of(report(), NOW) == "ready"
    assert state_of(report(reported_at=NOW + 3), NOW) == "ready"
    assert state_of(report(reported_at=NOW - 60), NOW) == "silent"


def test_applied_means_this_revision_or_a_later_one() -> None:
    """A worker that is ahead has gone through ours."""
    revisions = {
        one.worker: one.applied
        for one in acknowledgements(
            [report("a", revision=3), report("b"), report("c", revision=5)], 4, NOW
        )
    }

    assert revisions == {"a": False, "b": True, "c": True}


def test_a_refusal_carries_its_reason_and_an_old_one_does_not_count() -> None:
    """Only what was refused of this revision (or a later one) is told."""
    [fresh, old] = acknowledgements(
        [
            report("a", revision=3, refused_revision=4, refused_reason="no memory"),
            report("b", revision=3, refused_revision=2, refused_reason="earlier"),
        ],
        4,
        NOW,
    )

    assert (fresh.applied, fresh.refused) == (False, "no memory")
    assert (old.applied, old.refused) == (False, "")


def test_waiting_ends_when_everybody_has_answered() -> None:
    """Applied and refused are answers; silent and draining workers are not waited for."""

    def settled(*reports: WorkerReport) -> bool:
        return is_settled(acknowledgements(reports, 4, NOW))

    assert settled(report())
    assert settled(report("a"), report("b", revision=3, refused_revision=4, refused_reason="x"))
    assert settled(report("a"), report("b", revision=1, reported_at=0))
    assert settled(report("a"), report("b", revision=1, state="draining"))
    assert settled()
    assert not settled(report("a"), report("b", revision=3))
    assert not settled(report("a", revision=3, state="loading"))
