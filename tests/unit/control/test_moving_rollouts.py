import asyncio
import shutil
from pathlib import Path

import pytest
from rollout_kit import PLAN, Home, breach, compiled

from serving.config.keys import WorkerReport
from serving.control.publishing.compile import Compiled
from serving.errors import InvalidConfig
from serving.quarantine.decision import Quarantined

WEIGHTS = [{"weight": 5, "bake": {"min": "10s"}}, {"weight": 100, "bake": {"min": "10s"}}]
STEPS = {**PLAN, "steps": WEIGHTS}


@pytest.fixture
async def home(tmp_path: Path) -> Home:
    """A rollout that the file has begun, with something to see."""
    made = Home(tmp_path)
    made.see()
    return await made.start()


async def to_weight(home: Home) -> None:
    """Go to the step with 5 %."""
    await home.look()
    await home.bake()
    assert home.state.weight == 5.0


async def test_a_file_with_a_rollout_begins_it_and_the_first_step_follows(home: Home) -> None:
    """Started, named to workers without traffic; then its copies."""
    assert home.kinds == ["started"]
    assert home.put is not None
    assert (home.put.canary, home.put.weight, home.put.shadow) == ("v2", 0.0, 0.0)
    await home.look()

    assert home.kinds == ["started", "stepped"]
    assert (home.put.shadow, home.put.salt) == (25.0, "demo/r1")


async def test_a_whole_rollout_ends_with_the_new_version_in_production(home: Home) -> None:
    """Every step with its evidence, a person's yes, and the file untouched."""
    await to_weight(home)
    await home.bake()
    assert home.state.phase == "awaiting_approval"
    await home.verbs.act("demo", "approve", who="ann")
    await home.look()
    await home.bake()
    assert home.state.phase == "promoting"
    await home.look()

    assert home.kinds == [
        "started", "stepped", "stepped", "stepped", "approved", "stepped", "promoting", "done",
    ]  # fmt: skip
    assert home.put is not None
    assert (home.put.production, home.put.weight) == ("v2", 0.0)
    assert home.snapshot.models["demo"].traffic.production == "v1"


async def test_every_step_is_audited_and_told_with_its_evidence(home: Home) -> None:
    """Once each."""
    await to_weight(home)

    assert home.audited() == ["rollout started", "rollout stepped", "rollout stepped"]
    assert home.told == ["demo-r1 started", "demo-r1 stepped", "demo-r1 stepped"]
    line = (home.folder / "journal" / "audit.jsonl").read_text().splitlines()[-1]
    assert "requests: 200 of the new version" in line


async def test_a_breach_takes_traffic_back_in_the_same_look(home: Home) -> None:
    """Decided, written and published; over once the worker has it."""
    await to_weight(home)
    home.see(breach())
    await home.look()
    assert home.state.phase == "aborting"
    assert home.put is not None
    assert (home.put.weight, home.put.counting, home.put.canary) == (0.0, False, "v2")
    await home.look(follow=False)
    assert home.state.phase == "aborting"
    await home.look()

    assert home.state.phase == "aborted"
    assert home.state.reason == "`errors` fails twice as often"


async def test_a_worker_that_refuses_keeps_an_abort_open(home: Home) -> None:
    """It may still answer with the canary."""
    await to_weight(home)
    before = home.snapshot.revision
    home.see(breach())
    await home.look()
    await home.heard(before, refused_revision=home.snapshot.revision, refused_reason="no disk")
    await home.rollouts.look()

    assert home.state.phase == "aborting"


async def test_a_worker_that_is_gone_is_not_waited_for(home: Home) -> None:
    """It reported an old revision, and nothing for ten seconds."""
    await to_weight(home)
    await home.store.report(
        WorkerReport(worker="worker-1", state="ready", revision=1, reported_at=home.clock.wall())
    )
    home.see(breach())
    await home.look()
    await home.look()
    assert home.state.phase == "aborting"
    await home.look(10.0)

    assert home.state.phase == "aborted"


async def test_a_quarantined_canary_is_aborted(home: Home) -> None:
    """Its own bytes; another file of that name is another matter."""
    await to_weight(home)
    other = Quarantined(
        model="demo", version="v2", sha256="9" * 64, since=1.0, crashes=2, reason="x"
    )
    home.quarantined = [other]
    await home.look()
    assert home.state.phase == "progressing"
    home.quarantined = [
        Quarantined(
            model="demo", version="v2", sha256="2" * 64, since=1.0, crashes=2, reason="it crashed"
        )
    ]
    await home.look()

    assert home.state.phase == "aborting"
    assert home.state.cause == "quarantine"


async def test_a_hard_stop_aborts(home: Home) -> None:
    """A worker has tripped it."""
    await to_weight(home)
    home.see(tripped="5 errors in a row in worker-0")
    await home.look()

    assert (home.state.phase, home.state.cause) == ("aborting", "hard_stop")


async def test_the_first_step_waits_until_the_canary_is_ready(tmp_path: Path) -> None:
    """In every worker."""
    home = Home(tmp_path)
    home.see()
    await home.publisher.start(Path("/file"))
    for _ in range(3):
        await home.heard(not_ready={"demo/v2": "loading"})
        await home.rollouts.look()

    assert home.kinds == ["started"]
    standing = home.rollouts.standing("demo")
    assert standing is not None
    assert standing.waiting_for == ["v2 in worker-0: loading"]


async def test_with_the_store_away_nothing_advances_and_an_abort_is_decided(home: Home) -> None:
    """It reaches workers when the store is back."""
    await to_weight(home)
    home.store.available = False
    await home.bake(follow=False)
    assert home.state.weight == 5.0
    home.see(breach())
    await home.look(follow=False)
    assert home.state.phase == "aborting"
    home.store.available = True
    await home.publisher.start(None)
    await home.look(5.0)
    await home.look()

    assert home.state.phase == "aborted"
    assert (await home.store.rollouts())["demo-r1"] == home.state.revision


async def test_bounds_of_latency_are_frozen_once(tmp_path: Path) -> None:
    """From production's durations, before they count, in the log and in what workers are told."""
    home = Home(tmp_path)
    rules = [{"name": "slow", "metric": "latency", "tolerance": 1.5}]
    home.file = compiled({**STEPS, "guardrails": {"rules": rules}})
    home.see(production_seconds=[0.01] * 150 + [0.02] * 50)
    await home.start()
    await home.look()
    await home.look()
    await home.look()

    assert home.kinds == ["started", "stepped", "frozen"]
    assert home.put is not None
    assert home.put.latency_bounds == {"slow": [0.01, 0.02]}


# --- files ----------------------------------------------------------------------------------


async def test_an_apply_of_the_same_plan_leaves_the_rollout_alone(home: Home) -> None:
    """Weight and step go on; another key of the file may change."""
    await to_weight(home)
    await home.apply(compiled(deadline="2s"))

    assert home.put is not None
    assert home.put.weight == 5.0
    await home.look()
    assert home.kinds == ["started", "stepped", "stepped"]


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("file", [compiled(None), compiled(production="v2"), compiled(v2="9")])
async def test_a_file_that_contradicts_a_live_rollout_is_refused(
    home: Home, file: Compiled, steps: int
) -> None:
    """Its evidence is about what the file said, from the first moment; the rollout goes on."""
    for _ in range(steps):
        await to_weight(home)
    before = home.put
    with pytest.raises(InvalidConfig, match="demo-r1"):
        await home.apply(file)
    await home.look(follow=False)

    assert home.state.is_live
    assert before is not None
    assert home.put is not None
    assert home.put.weight == before.weight


@pytest.mark.parametrize(
    "file", [compiled(None), compiled(production="v2"), compiled(v2="9"), compiled(production="v3")]
)
async def test_a_file_that_is_served_all_the_same_supersedes(home: Home, file: Compiled) -> None:
    """Another control published it: the canary gets nothing from that revision on."""
    await to_weight(home)
    await home.found(file)
    assert home.put is None
    await home.look()

    assert "superseded" in home.kinds or home.state.id == "demo-r2"
    assert home.rollouts.log.of("demo")[0].state.phase == "aborted"


async def test_another_canary_that_is_served_begins_another_rollout(home: Home) -> None:
    """The old one gets nothing from the same revision on; the new one has its own number."""
    await to_weight(home)
    await home.found(compiled({**PLAN, "canary": "v3"}))
    assert home.put is not None
    assert (home.put.canary, home.put.weight) == ("v2", 0.0)
    await home.look()

    assert (home.state.id, home.state.canary) == ("demo-r2", "v3")


async def test_what_was_stopped_begins_again_only_by_retry(home: Home) -> None:
    """The same bytes, whatever is applied; `retry` says why."""
    await home.look()
    await home.verbs.act("demo", "abort", who="ann")
    await home.look()
    await home.look(10_000.0)
    await home.look()
    assert home.state.id == "demo-r1"
    standing = home.rollouts.standing("demo")
    assert standing is not None
    assert "was stopped in demo-r1" in standing.waiting_for[0]
    again = await home.verbs.act("demo", "retry", who="ann", reason="the store was slow")

    assert (again.id, again.phase) == ("demo-r2", "pending")


async def test_a_plan_is_told_what_holds_its_rollout_back(home: Home) -> None:
    """The block and the cooldown; nothing while one is under way, and nothing of another file."""
    plan = {**STEPS, "after_abort": {"cooldown": "1h"}}
    same, other = compiled(plan), compiled(plan, v2="e")

    def held(file: Compiled) -> str:
        return home.rollouts.held(file.configuration.models["demo"], file.staged["demo"])

    assert held(same) == ""
    await home.verbs.act("demo", "abort", who="ann", reason="odd")
    await home.look()
    await home.look()

    assert "v2 was stopped in demo-r1 (odd)" in held(same)
    assert "`cooldown` is over in" in held(other)
    home.clock.advance(3601)
    assert held(other) == ""
    assert "v2 was stopped" in held(same)


async def test_a_stopped_canary_stays_named_until_keep_warm_is_over(home: Home) -> None:
    """Half an hour, then workers hear nothing of it any more."""
    await home.look()
    await home.verbs.act("demo", "abort", who="ann")
    await home.look()
    await home.look(1_790.0)
    assert home.put is not None
    await home.look(11.0)

    assert home.put is None


async def test_done_outlives_the_plan_and_ends_with_the_file(tmp_path: Path) -> None:
    """v2 stays production over a file that says v1, until it says v2."""
    home = Home(tmp_path)
    home.file = compiled(STEPS)
    home.see()
    await home.start()
    await home.look()
    await home.verbs.act("demo", "promote", who="ann", full=True)
    await home.look()
    assert home.state.phase == "done"
    await home.look(100_000.0)
    assert home.put is not None
    await home.apply(compiled(STEPS, production="v2"))
    await home.look()

    assert home.put is None
    assert home.kinds[-1] == "superseded"


async def test_a_stopped_rollout_leaves_what_the_one_before_made_production(tmp_path: Path) -> None:
    """r1 made v2 production; v3 is stopped and forgotten; v2 answers."""
    home = Home(tmp_path)
    home.file = compiled(STEPS)
    home.see()
    await home.start()
    await home.look()
    await home.verbs.act("demo", "promote", who="ann", full=True)
    await home.look()
    await home.apply(compiled({**STEPS, "canary": "v3"}))
    await home.look()
    assert (home.state.canary, home.state.production) == ("v3", "v2")
    await home.verbs.act("demo", "abort", who="ann")
    await home.look()
    await home.look(2_000.0)

    assert home.put is not None
    assert (home.put.canary, home.put.production, home.put.weight) == ("v2", "v2", 0.0)


# --- restarts -------------------------------------------------------------------------------


async def test_a_restart_goes_on_where_the_events_end(home: Home) -> None:
    """No step again, none left out, the same traffic; the wall clock went on meanwhile."""
    await to_weight(home)
    before, put = home.kinds, home.put
    await home.restart()

    assert home.kinds == before
    assert home.put == put
    await home.bake()
    assert home.kinds == [*before, "stepped"]


async def test_an_event_that_was_only_written_is_carried_out_by_the_next_process(
    home: Home,
) -> None:
    """Killed after the disk: published, audited and told now."""
    await to_weight(home)
    home.see(breach())
    path = home.folder / "rollouts" / "demo" / "demo-r1" / "events.jsonl"
    journal = (home.folder / "journal" / "snapshots.jsonl").read_bytes()
    audit = (home.folder / "journal" / "audit.jsonl").read_bytes()
    await home.look()
    assert b"aborting" in path.read_bytes()
    # As a kill between the two leaves it: the event is there, nothing that follows from it.
    (home.folder / "journal" / "snapshots.jsonl").write_bytes(journal)
    (home.folder / "journal" / "audit.jsonl").write_bytes(audit)
    (home.folder / "snapshot.json").unlink()
    home.store.clear()
    home.told.clear()
    await home.restart()

    assert home.put is not None
    assert home.put.weight == 0.0
    assert home.audited()[-1] in ("rollout aborting", "rollout aborted")
    assert home.audited().count("rollout aborting") == 1
    assert home.told[0] == "demo-r1 aborting"


async def test_an_empty_store_gets_the_events_again(home: Home) -> None:
    """FLUSHALL, and nobody but the disk knew."""
    await to_weight(home)
    home.store.clear()
    await home.publisher.start(None)
    await home.look(6.0)

    events = await home.store.rollout_events("demo-r1")
    assert sorted(events) == [1, 2, 3]


async def test_a_lost_disk_takes_the_events_from_the_store(home: Home) -> None:
    """The rollout goes on at its step."""
    await to_weight(home)
    shutil.rmtree(home.folder / "rollouts")
    await home.restart()

    assert home.kinds == ["started", "stepped", "stepped"]
    assert home.put is not None
    assert home.put.weight == 5.0


async def test_two_controls_on_one_store_move_it_once(home: Home, tmp_path: Path) -> None:
    """Whoever is second finds what the first has done, and goes on from there."""
    await to_weight(home)
    second = Home(tmp_path / "second", home.store)
    second.clock = home.clock
    second.build()
    second.see()
    await second.publisher.start(None)
    await second.rollouts.look()
    assert second.kinds == home.kinds
    await home.verbs.act("demo", "pause", who="ann")
    # It has not heard of that, and wants to abort.
    second.see(breach())
    home.see(breach())
    for _ in range(3):
        home.clock.advance(2.0)
        await home.heard()
        await asyncio.gather(second.rollouts.look(), home.rollouts.look(), return_exceptions=True)

    stored = await home.store.rollout_events("demo-r1")
    assert sorted(stored) == list(range(1, len(stored) + 1))
    assert home.kinds == ["started", "stepped", "stepped", "paused", "aborting", "aborted"]
    assert second.kinds == home.kinds


# --- a disk that takes nothing --------------------------------------------------------------


async def test_nothing_moves_that_cannot_be_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses the event: traffic stays, and the next look tries again."""
    await home.look()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("serving.control.rollouts.log.append_line", full)
        with pytest.raises(Exception, match="No space left"):
            await home.bake()
        assert home.kinds == ["started", "stepped"]
        assert home.put is not None
        assert home.put.weight == 0.0
    await home.look()

    assert home.state.weight == 5.0
