"""The verbs of the publisher, and what a start finds."""

import asyncio
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from publisher_kit import Bench, compiled

from serving.config.schema import (
    GatewayConfig,
    Limits,
)
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.control.publishing.journal import Journal
from serving.errors import (
    Conflict,
    InvalidConfig,
    ModelNotFound,
    ModelNotReady,
    ServingError,
    StoreUnavailable,
)


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    """A publisher that has published /v1."""
    return await Bench.serving_v1(tmp_path)


async def test_the_first_start_publishes_the_directory(bench: Bench) -> None:
    """Revision 1 is in the store, in the journal, and on disk for workers."""
    snapshot = await bench.stored()

    assert (snapshot.revision, snapshot.author) == (1, "start")
    assert decode_snapshot((bench.folder / "snapshot.json").read_bytes()) == snapshot
    last = Journal(bench.folder / "journal").last
    assert last is not None
    assert (last.snapshot, last.action, last.directory) == (snapshot, "start", "/v1")


async def test_an_unchanged_directory_is_not_published_again(bench: Bench) -> None:
    """A restart without an edit leaves the revision alone."""
    assert (await bench.restarted("/v1")).revision == 1


async def test_a_changed_directory_is_published_at_start(bench: Bench) -> None:
    """A restart with an edit serves the edit."""
    assert (await bench.restarted("/v2")).revision == 2
    assert (await bench.stored()).models["demo"].traffic.production == "v2"


async def test_control_alone_restarted_does_not_take_over_edits(bench: Bench) -> None:
    """What nobody has applied does not slip in when control is restarted under its engine."""
    await bench.publisher.apply(Path("/v2"), author="ann")

    assert (await bench.restarted(None)).revision == 2
    assert (await bench.stored()).models["demo"].traffic.production == "v2"


async def test_a_broken_directory_at_start_leaves_the_last_good_one(bench: Bench) -> None:
    """A mistake on disk does not take down what was served, and is told."""
    publisher = await bench.restarted("/bad")

    assert publisher.revision == 1
    assert "mistake" in publisher.problem
    assert (await bench.stored()).revision == 1


async def test_a_broken_directory_at_the_very_first_start_is_an_error(tmp_path: Path) -> None:
    """With nothing to fall back to there is nothing to serve."""
    bench = Bench(tmp_path)

    with pytest.raises(InvalidConfig):
        await bench.publisher.start(Path("/bad"))

    assert await bench.store.snapshot() is None


async def test_an_empty_store_gets_the_journals_last_revision(bench: Bench) -> None:
    """A store that lost everything is filled again, with the same revision."""
    await bench.publisher.apply(Path("/v2"), author="ann")
    before = await bench.stored()
    bench.store.clear()
    await bench.restarted(None)

    assert await bench.stored() == before


async def test_a_store_that_is_ahead_wins(bench: Bench) -> None:
    """Workers already follow the store's revision; control goes on from there."""
    ahead = replace(await bench.stored(), revision=9, author="elsewhere")
    await bench.store.publish(ahead)

    publisher = await bench.restarted("/v2")

    assert publisher.revision == 10
    assert [one.action for one in publisher.journal.newest(9)] == ["start", "adopt", "start"]


async def test_a_lost_journal_and_store_do_not_begin_at_one_again(bench: Bench) -> None:
    """Workers ignore lower revisions, so control counts on from what they have on their disk."""
    served = replace(await bench.stored(), revision=7)
    (bench.folder / "snapshot.json").write_bytes(encode_snapshot(served))
    shutil.rmtree(bench.folder / "journal")
    bench.store.clear()

    publisher = await bench.restarted("/v2")

    assert publisher.revision == 8
    assert (await bench.stored()).revision == 8


async def test_start_waits_for_a_store_that_is_not_there_yet(tmp_path: Path) -> None:
    """Control may be started before the store."""
    bench = Bench(tmp_path)
    bench.store.available = False
    starting = asyncio.create_task(bench.publisher.start(Path("/v1")))
    await asyncio.sleep(0)
    with pytest.raises(ModelNotReady, match="starting"):
        await bench.publisher.apply(Path("/v1"), author="ann")
    bench.store.available = True
    await starting

    assert (await bench.stored()).revision == 1


async def test_apply_publishes_and_says_what_changed(bench: Bench) -> None:
    """The next revision names its author; the journal keeps the reason."""
    outcome = await bench.publisher.apply(
        Path("/v2"), author="ann", expected_revision=1, reason="better"
    )

    assert (outcome.revision, outcome.published) == (2, True)
    assert outcome.plan.lines() == ["~ demo.traffic.production: v1 -> v2"]
    snapshot = await bench.stored()
    assert (snapshot.revision, snapshot.author) == (2, "ann")
    last = bench.publisher.journal.last
    assert last is not None
    assert (last.author, last.reason, last.action) == ("ann", "better", "apply")


async def test_applying_what_is_served_changes_nothing(bench: Bench) -> None:
    """No revision is spent on no change."""
    outcome = await bench.publisher.apply(Path("/v1"), author="ann")

    assert (outcome.revision, outcome.published) == (1, False)
    assert len(bench.publisher.journal.revisions) == 1


async def test_a_stale_expectation_is_a_conflict(bench: Bench) -> None:
    """Somebody else was faster: nothing changes, and the current revision is told."""
    with pytest.raises(Conflict) as caught:
        await bench.publisher.apply(Path("/v2"), author="ann", expected_revision=7)

    assert caught.value.revision == 1
    assert (await bench.stored()).revision == 1


async def test_an_invalid_directory_changes_nothing(bench: Bench) -> None:
    """What was served goes on being served."""
    with pytest.raises(InvalidConfig):
        await bench.publisher.apply(Path("/bad"), author="ann")

    assert (await bench.stored()).revision == 1
    assert len(bench.publisher.journal.revisions) == 1


async def test_a_plan_changes_nothing(bench: Bench) -> None:
    """Looking costs nothing."""
    outcome = await bench.publisher.plan(Path("/v2"))

    assert (outcome.revision, outcome.published) == (1, False)
    assert outcome.plan.changes
    assert (await bench.stored()).revision == 1


async def test_gateway_settings_are_planned_and_not_published(bench: Bench) -> None:
    """A change that needs a restart is shown by plan and apply, and makes no revision."""
    bench.directories.made["/moved"] = compiled(gateway=GatewayConfig(store="redis://elsewhere"))
    outcome = await bench.publisher.apply(Path("/moved"), author="ann")

    assert (outcome.revision, outcome.published) == (1, False)
    [change] = outcome.plan.changes
    assert change.needs_restart


async def test_gateway_settings_that_workers_take_over_make_a_revision(bench: Bench) -> None:
    """The history shows them, and applying them again changes nothing."""
    bench.directories.made["/limits"] = compiled(
        gateway=GatewayConfig(limits=Limits(max_elements=5))
    )
    first = await bench.publisher.apply(Path("/limits"), author="ann")
    again = await bench.publisher.apply(Path("/limits"), author="ann")

    assert (first.revision, first.published) == (2, True)
    assert (again.revision, again.published) == (2, False)
    assert bench.publisher.running.gateway.limits.max_elements == 5
    entry = bench.publisher.journal.last
    assert entry is not None
    assert entry.gateway.limits.max_elements == 5


async def test_without_the_store_nothing_is_changed(bench: Bench) -> None:
    """A change that no worker could hear of is refused, and not journaled for later."""
    bench.store.available = False
    with pytest.raises(StoreUnavailable):
        await bench.publisher.apply(Path("/v2"), author="ann")

    assert bench.publisher.revision == 1


async def test_a_store_that_goes_away_in_mid_publish_gets_it_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once journaled the decision stands, and upkeep carries it out."""
    real = bench.store.publish

    async def gone(_: Snapshot) -> bool:
        raise StoreUnavailable("the store does not answer")

    monkeypatch.setattr(bench.store, "publish", gone)
    outcome = await bench.publisher.apply(Path("/v2"), author="ann")
    assert (outcome.revision, outcome.published) == (2, True)
    assert (await bench.stored()).revision == 1

    monkeypatch.setattr(bench.store, "publish", real)
    await bench.restarted(None)
    assert (await bench.stored()).revision == 2


async def test_a_journal_that_cannot_be_written_stops_the_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be forgotten by the next restart is not published either."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.control.publishing.journal.append_line", full)
    with pytest.raises(ServingError, match="No space left on device"):
        await bench.publisher.apply(Path("/v2"), author="ann")

    assert bench.publisher.revision == 1
    assert (await bench.stored()).revision == 1


async def test_another_writer_is_noticed(bench: Bench) -> None:
    """A store that moved on behind our back is a conflict, not an overwrite."""
    theirs = replace(await bench.stored(), revision=2, author="other")
    await bench.store.publish(theirs)

    with pytest.raises(Conflict):
        await bench.publisher.apply(Path("/v2"), author="ann")

    assert (await bench.stored()).author == "other"
    assert bench.publisher.current == theirs


async def test_two_applies_at_once_make_two_revisions(bench: Bench) -> None:
    """Verbs wait for each other; the second sees what the first did."""
    bench.directories.made["/v1b"] = compiled("v1")
    first, second = await asyncio.gather(
        bench.publisher.apply(Path("/v2"), author="ann"),
        bench.publisher.apply(Path("/v1b"), author="bob"),
    )

    assert (first.revision, second.revision) == (2, 3)
    assert second.plan.lines() == ["~ demo.traffic.production: v2 -> v1"]


async def test_unload_and_load_make_revisions(bench: Bench) -> None:
    """The model stays configured; twice is once."""
    unload = await bench.publisher.set_loaded("demo", loaded=False, author="ann")
    assert (unload.revision, (await bench.stored()).unloaded) == (2, ["demo"])

    again = await bench.publisher.set_loaded("demo", loaded=False, author="ann")
    assert (again.revision, again.published) == (2, False)

    load = await bench.publisher.set_loaded("demo", loaded=True, author="ann")
    assert (load.revision, (await bench.stored()).unloaded) == (3, [])


async def test_an_unloaded_model_stays_so_through_an_apply(bench: Bench) -> None:
    """Applying a configuration does not load what somebody has unloaded."""
    await bench.publisher.set_loaded("demo", loaded=False, author="ann")
    await bench.publisher.apply(Path("/v2"), author="bob")

    assert (await bench.stored()).unloaded == ["demo"]


async def test_an_unknown_model_cannot_be_loaded(bench: Bench) -> None:
    """The message begins as clients expect."""
    with pytest.raises(ModelNotFound, match=r"^Request for unknown model"):
        await bench.publisher.set_loaded("nobody", loaded=True, author="ann")
