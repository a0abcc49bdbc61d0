import asyncio
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from serving.clock import ManualClock
from serving.config.keys import WorkerReport
from serving.config.schema import (
    Configuration,
    GatewayConfig,
    Limits,
    ModelConfig,
    TrafficConfig,
    VersionSource,
)
from serving.config.snapshot import Snapshot, StagedVersion
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.control.compile import Compiled
from serving.control.journal import Journal
from serving.control.publisher import Publisher
from serving.control.store import MemoryStore
from serving.errors import (
    Conflict,
    InvalidConfig,
    ModelNotFound,
    ModelNotReady,
    ServingError,
    StoreUnavailable,
)
from serving.tasks import end
from serving.types import Signature


def compiled(production: str = "v1", gateway: GatewayConfig | None = None) -> Compiled:
    """A configuration with one model."""
    versions = {v: VersionSource(path=f"{v}.onnx", sha256=v[1] * 64) for v in ("v1", "v2")}
    model = ModelConfig(
        model="demo", versions=versions, traffic=TrafficConfig(production=production)
    )
    signature = Signature(inputs=[], outputs=[], batchable=True)
    staged = {
        v: StagedVersion(path=f"/data/{v}", sha256=source.sha256, signature=signature)
        for v, source in versions.items()
    }
    return Compiled(
        configuration=Configuration(gateway=gateway or GatewayConfig(), models={"demo": model}),
        staged={"demo": staged},
        warnings=[],
    )


class Directories:
    """Stands for configuration directories: a path, and what compiling it gives."""

    def __init__(self) -> None:
        self.made: dict[str, Compiled | InvalidConfig] = {
            "/v1": compiled("v1"),
            "/v2": compiled("v2"),
            "/bad": InvalidConfig("the configuration has 1 mistake", ("models/demo.yaml: no",)),
        }

    def compile(self, directory: Path) -> Compiled:
        """Compile a directory, or say why not."""
        found = self.made[str(directory)]
        if isinstance(found, InvalidConfig):
            raise found
        return found


class Bench:
    """A publisher, what surrounds it, and how to restart it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.directories = Directories()
        self.publisher = self.made()

    def made(self) -> Publisher:
        """A publisher as a freshly started process has it: only the disk is remembered."""
        return Publisher(
            store=self.store,
            journal=Journal(self.folder / "journal"),
            compile_directory=self.directories.compile,
            gateway=GatewayConfig(),
            data=self.folder,
            clock=ManualClock(),
            log=logging.getLogger("test"),
        )

    async def restarted(self, directory: str | None) -> Publisher:
        """Start again on the same disk."""
        self.publisher = self.made()
        await self.publisher.start(Path(directory) if directory else None)
        return self.publisher

    async def stored(self) -> Snapshot:
        """What workers read."""
        snapshot = await self.store.snapshot()
        assert snapshot is not None
        return snapshot


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    """A publisher that has published /v1."""
    made = Bench(tmp_path)
    await made.publisher.start(Path("/v1"))
    return made


@asynccontextmanager
async def keeping(publisher: Publisher) -> AsyncIterator[None]:
    """Upkeep running meanwhile."""
    task = asyncio.create_task(publisher.upkeep.keep())
    try:
        yield
    finally:
        await end(task)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something upkeep does."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


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

    monkeypatch.setattr("serving.control.journal.append_line", full)
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


async def test_upkeep_fills_a_store_that_was_flushed(bench: Bench) -> None:
    """FLUSHALL costs workers nothing they do not get back."""
    before = await bench.stored()
    async with keeping(bench.publisher):
        bench.store.clear()
        await until(lambda: bench.store._snapshot is not None)

    assert await bench.stored() == before


async def test_upkeep_notices_the_store_going_and_coming(bench: Bench) -> None:
    """The status tells, and what was lost meanwhile is there again."""
    async with keeping(bench.publisher):
        bench.store.available = False
        await until(lambda: not bench.publisher.upkeep.store_up)
        bench.store.clear()
        bench.store.available = True
        await until(lambda: bench.publisher.upkeep.store_up)

    assert (await bench.stored()).revision == 1


async def test_upkeep_follows_another_writer(bench: Bench) -> None:
    """A revision announced by somebody else becomes ours."""
    theirs = replace(await bench.stored(), revision=5, author="other")
    async with keeping(bench.publisher):
        await bench.store.publish(theirs)
        await until(lambda: bench.publisher.revision == 5)

    assert bench.publisher.current == theirs


def staged_names(bench: Bench) -> set[str]:
    """What is staged, by the first character of each digest."""
    return {file.name[0] for file in (bench.folder / "artifacts").iterdir()}


def version_of(bench: Bench, digit: str) -> Path:
    """A directory whose only version has a digest of `digit`, staged when it is compiled."""
    base = compiled("v1")
    one = replace(base.staged["demo"]["v1"], sha256=digit * 64)
    path = f"/{digit}"
    bench.directories.made[path] = replace(base, staged={"demo": {"v1": one}})
    (bench.folder / "artifacts").mkdir(exist_ok=True)
    (bench.folder / "artifacts" / f"{digit * 64}.onnx").touch()
    return Path(path)


async def serve(bench: Bench, revision: int) -> None:
    """A worker says what it serves."""
    await bench.store.report(
        WorkerReport(worker="w", state="ready", revision=revision, reported_at=0.0)
    )


async def test_files_of_revisions_long_gone_are_removed_but_not_what_a_worker_serves(
    bench: Bench,
) -> None:
    """The last five revisions stay complete; a worker that is behind keeps its own and newer."""
    revisions = {}
    for digit in "abcdef12":
        revisions[digit] = (
            await bench.publisher.apply(version_of(bench, digit), author="ann")
        ).revision
    await serve(bench, revisions["b"])
    async with keeping(bench.publisher):
        await until(lambda: "a" not in staged_names(bench))
        assert staged_names(bench) == set("bcdef12")

        await serve(bench, revisions["2"])
        await bench.publisher.apply(version_of(bench, "3"), author="ann")
        await until(lambda: "b" not in staged_names(bench))

    assert staged_names(bench) == set("ef123")


async def test_files_that_are_being_checked_are_not_removed(bench: Bench) -> None:
    """No revision refers to them yet; they are cleared once nobody plans any more."""
    version_of(bench, "f")
    started, go_on = threading.Event(), threading.Event()
    plain = bench.directories.compile

    def slow(directory: Path) -> Compiled:
        started.set()
        assert go_on.wait(20)
        assert "f" in staged_names(bench)
        return plain(directory)

    bench.publisher._compile = slow
    planning = asyncio.create_task(bench.publisher.plan(Path("/f")))
    await asyncio.to_thread(started.wait, 20)
    await bench.publisher._stock.clear([])
    assert bench.publisher._stock.may_hold_leftovers
    go_on.set()
    await planning
    await bench.publisher._stock.clear([])

    assert staged_names(bench) == set()
