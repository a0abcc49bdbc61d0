import pytest

from serving.config.keys import SILENT_SECONDS, WorkerReport
from serving.control.rollouts.facts import Heard, facts_of, is_everywhere
from serving.control.rollouts.observer import Seen
from serving.quarantine.decision import Quarantined
from serving.rollout.baking import Facts
from serving.rollout.state import RolloutState

NOW = 1_000.0
STATE = RolloutState(id="demo-r1", model="demo", canary="v2", canary_sha256="2" * 64)


def report(worker: str = "worker-0", revision: int = 5, **more: object) -> WorkerReport:
    """A worker that lives."""
    known = {"worker": worker, "state": "ready", "revision": revision, "reported_at": NOW}
    return WorkerReport(**{**known, **more})  # type: ignore[arg-type]


def facts(*reports: WorkerReport, quarantined: tuple[Quarantined, ...] = ()) -> Facts:
    """What is known of a rollout with nothing seen yet."""
    return facts_of(
        STATE,
        Seen(),
        Heard(reports=list(reports), store_up=True),
        quarantined=quarantined,
        last_data=None,
        acknowledged=False,
        now=NOW,
    )


@pytest.mark.parametrize(
    ("other", "everywhere"),
    [
        ({"revision": 5}, True),
        ({"revision": 4}, False),
        ({"revision": 4, "state": "draining"}, True),
        ({"revision": 4, "reported_at": NOW - SILENT_SECONDS - 1}, True),
        ({"revision": 4, "refused_revision": 5, "refused_reason": "no disk"}, False),
        ({"revision": 5, "refused_revision": 6, "refused_reason": "no disk"}, True),
    ],
    ids=["has it", "not yet", "on its way out", "gone", "refused", "refused a later one"],
)
def test_a_revision_is_everywhere_when_each_worker_that_lives_has_it(
    other: dict[str, object], *, everywhere: bool
) -> None:
    """Whoever refused it may still answer with the canary."""
    heard = Heard(reports=[report(), report("worker-1", **other)], store_up=True)  # type: ignore[arg-type]

    assert is_everywhere(heard, 5, NOW) is everywhere


def test_nobody_can_say_so_while_the_store_is_away() -> None:
    """The reports are yesterday's."""
    assert not is_everywhere(Heard(reports=[report()], store_up=False), 5, NOW)


def test_a_worker_without_the_canary_is_named() -> None:
    """One that is going needs it no more."""
    loading = {"demo/v2": "loading"}

    assert facts(report(not_ready=loading)).not_ready == "v2 in worker-0: loading"
    assert facts(report(not_ready=loading, state="draining")).not_ready == ""
    assert facts(report(not_ready={"demo/v1": "loading"})).not_ready == ""


def test_only_workers_that_report_count() -> None:
    """A silent one is none."""
    assert facts(report(), report("worker-1", reported_at=NOW - 60)).workers == 1


def test_the_quarantine_is_about_the_canarys_own_bytes() -> None:
    """Another file of that name, or another version, is no reason."""

    def entry(version: str, digit: str) -> Quarantined:
        return Quarantined(
            model="demo", version=version, sha256=digit * 64, since=1.0, crashes=2, reason="crashed"
        )

    assert facts(quarantined=(entry("v2", "2"),)).quarantined == "crashed"
    assert facts(quarantined=(entry("v2", "9"), entry("v1", "2"))).quarantined == ""
