"""Where snapshots come from, with a real store that comes, goes and holds nonsense."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from store_kit import ValkeyServer
from waiting_kit import soon

from serving.config.keys import SNAPSHOT_KEY, WORKERS_KEY, WorkerReport
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import decode_snapshot, encode_snapshot
from serving.errors import InvalidArtifact
from serving.tasks import end
from serving.worker import snapshots
from serving.worker.life import resident_bytes
from serving.worker.snapshots import SnapshotFeed

NAME = "worker-0"


def snapshot(revision: int) -> Snapshot:
    """An empty configuration under a revision."""
    return Snapshot(
        revision=revision, published_at=1.0, author="ann", models={}, views={}, staged={}
    )


class Worker:
    """What a worker does with snapshots: serve them, or refuse those it cannot serve."""

    def __init__(self, folder: Path, url: str) -> None:
        self.tried: list[int] = []
        self.applied: list[int] = []
        self.unservable: set[int] = set()
        self.state: Any = "ready"
        self.file = folder / "snapshot.json"
        self.feed = SnapshotFeed(
            url=url,
            data=folder,
            worker=NAME,
            apply=self._apply,
            report=self.report,
            log=logging.getLogger(NAME),
        )

    async def _apply(self, snapshot: Snapshot) -> None:
        await asyncio.sleep(0)
        self.tried.append(snapshot.revision)
        if snapshot.revision in self.unservable:
            raise InvalidArtifact(f"revision {snapshot.revision} is not for me")
        self.applied.append(snapshot.revision)

    def report(self) -> WorkerReport:
        """What it says of itself."""
        return WorkerReport(
            worker=NAME,
            state=self.state,
            revision=self.applied[-1] if self.applied else 0,
            reported_at=1.0,
            refused_revision=self.feed.refused_revision,
            refused_reason=self.feed.refused_reason,
        )


@contextlib.asynccontextmanager
async def following(worker: Worker) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a worker's feed; its own failure fails the test, and it ends when it is told to."""
    task = asyncio.create_task(worker.feed.run())
    try:
        yield task
        assert not task.done(), task.exception()
    finally:
        async with asyncio.timeout(30):
            await end(task)


def reported(store: ValkeyServer) -> WorkerReport | None:
    """What the store knows of the worker."""
    with store.client() as client:
        body = client.hget(WORKERS_KEY, f"{NAME}@")
    return None if body is None else msgspec.json.decode(body, type=WorkerReport)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A store that does not run yet."""
    server = ValkeyServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def worker(tmp_path: Path, store: ValkeyServer) -> Worker:
    """A worker that has seen nothing."""
    return Worker(tmp_path, store.url)


async def test_the_disk_serves_while_the_store_is_down(worker: Worker) -> None:
    """A worker without a store begins with the last good snapshot on its disk."""
    worker.file.write_bytes(encode_snapshot(snapshot(5)))

    async with following(worker):
        await soon(lambda: worker.applied)

    assert worker.applied == [5]


async def test_a_store_that_comes_later_is_found(worker: Worker, store: ValkeyServer) -> None:
    """A worker that began without the store follows it once it is there."""
    worker.file.write_bytes(encode_snapshot(snapshot(5)))

    async with following(worker):
        await soon(lambda: worker.applied)
        store.start()
        store.publish(snapshot(6))
        await soon(lambda: 6 in worker.applied)

    assert worker.applied == [5, 6]


async def test_the_store_wins_with_a_higher_revision(worker: Worker, store: ValkeyServer) -> None:
    """What the store holds replaces what the disk held, there too."""
    worker.file.write_bytes(encode_snapshot(snapshot(5)))
    store.start().publish(snapshot(9))

    async with following(worker):
        await soon(lambda: 9 in worker.applied)
        await soon(lambda: decode_snapshot(worker.file.read_bytes()).revision == 9)


async def test_nothing_on_disk_is_no_error(worker: Worker, store: ValkeyServer) -> None:
    """The first worker of a new data directory waits for the store and remembers its answer."""
    store.start()

    async with following(worker):
        await soon(lambda: reported(store))
        store.publish(snapshot(1))
        await soon(worker.file.exists)

    assert worker.applied == [1]
    assert decode_snapshot(worker.file.read_bytes()) == snapshot(1)


@pytest.mark.parametrize("late", [3, 5])
async def test_a_revision_that_is_not_higher_is_ignored(worker: Worker, late: int) -> None:
    """Whoever offers it, a lower or equal revision changes nothing, in memory or on disk."""
    await worker.feed.offer(snapshot(5))

    await worker.feed.offer(snapshot(late))

    assert worker.applied == [5]
    assert decode_snapshot(worker.file.read_bytes()).revision == 5


async def test_a_store_that_was_restored_from_a_backup_changes_nothing(
    worker: Worker, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that holds a lower revision is read, and what is served stays."""
    fetched: list[int] = []
    real = SnapshotFeed.offer

    async def offer(self: SnapshotFeed, offered: Snapshot, *, persist: bool = True) -> None:
        await real(self, offered, persist=persist)
        fetched.append(offered.revision)

    monkeypatch.setattr(SnapshotFeed, "offer", offer)
    worker.file.write_bytes(encode_snapshot(snapshot(5)))
    store.start().publish(snapshot(3))

    async with following(worker):
        await soon(lambda: 3 in fetched)

    assert worker.applied == [5]


async def test_what_cannot_be_applied_is_reported_and_the_old_served(
    worker: Worker, store: ValkeyServer
) -> None:
    """A refused revision is told to the store with its reason, and never reaches the disk."""
    worker.unservable = {2}
    store.start().publish(snapshot(1))

    async with following(worker):
        await soon(lambda: worker.applied)
        store.publish(snapshot(2))
        await soon(lambda: (said := reported(store)) and said.refused_revision)
        said = reported(store)

    assert said is not None
    assert (said.revision, said.refused_revision) == (1, 2)
    assert said.refused_reason == "revision 2 is not for me"
    assert decode_snapshot(worker.file.read_bytes()).revision == 1


async def test_after_a_refusal_a_higher_revision_is_served(worker: Worker) -> None:
    """Its successor makes a refused revision history."""
    worker.unservable = {2}
    for revision in (1, 2, 3, 2):
        await worker.feed.offer(snapshot(revision))

    assert worker.applied == [1, 3]


async def test_a_refused_revision_is_served_once_what_was_wrong_is_mended(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """A file put back needs no new revision; the same refusal again is not said again."""
    worker.unservable = {2}
    for revision in (1, 2, 2, 2):
        await worker.feed.offer(snapshot(revision))
    assert len([record for record in caplog.records if "refused" in record.message]) == 1

    worker.unservable = set()
    await worker.feed.offer(snapshot(2))
    await worker.feed.offer(snapshot(2))

    assert worker.applied == [1, 2]
    assert worker.feed.refused_revision == 0


async def test_a_refused_revision_is_served_once_it_can_be(
    worker: Worker,
    store: ValkeyServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is tried again whenever the store is read; its refusal is said once, then taken back."""
    monkeypatch.setattr(snapshots, "_READ_AGAIN_SECONDS", 0.05)
    worker.unservable = {2}
    store.start().publish(snapshot(1))

    async with following(worker):
        await soon(lambda: worker.applied)
        store.publish(snapshot(2))
        await soon(lambda: worker.tried.count(2) >= 3)
        worker.unservable = set()
        await soon(lambda: (said := reported(store)) and said.revision == 2)
        said = reported(store)

    assert caplog.text.count("revision 2 refused") == 1
    assert worker.applied == [1, 2]
    assert said is not None
    assert (said.refused_revision, said.refused_reason) == (0, "")
    assert decode_snapshot(worker.file.read_bytes()).revision == 2


async def test_a_snapshot_on_disk_that_cannot_be_applied_waits_for_the_store(
    worker: Worker, store: ValkeyServer
) -> None:
    """A worker whose disk holds what it can no longer load goes on to the store."""
    worker.unservable = {5}
    worker.file.write_bytes(encode_snapshot(snapshot(5)))
    store.start().publish(snapshot(6))

    async with following(worker):
        await soon(lambda: worker.applied)

    assert worker.applied == [6]
    assert worker.feed.refused_revision == 5


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b'{"revision": "five"}', b"[" * 100_000],
)
async def test_a_corrupt_snapshot_on_disk_waits_for_the_store(
    worker: Worker, store: ValkeyServer, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A torn or foreign file is said to be that; the store's snapshot is served and replaces it."""
    worker.file.write_bytes(content)
    store.start().publish(snapshot(1))

    async with following(worker):
        await soon(lambda: worker.applied)

    assert "the snapshot on disk cannot be read" in caplog.text
    assert decode_snapshot(worker.file.read_bytes()).revision == 1


async def test_a_disk_that_cannot_be_written_costs_only_the_memory(
    worker: Worker, store: ValkeyServer
) -> None:
    """With a folder in the file's place nothing is remembered, and revisions are served."""
    worker.file.mkdir()
    store.start().publish(snapshot(1))

    async with following(worker):
        await soon(lambda: worker.applied)

    assert worker.applied == [1]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"revision": -1}', b"[" * 100_000])
async def test_a_corrupt_snapshot_in_the_store_is_left_alone(
    worker: Worker, store: ValkeyServer, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read is said and skipped; the worker goes on and takes the next good one."""
    store.start().publish(snapshot(1))

    async with following(worker):
        await soon(lambda: worker.applied)
        store.publish(content)
        await soon(lambda: "the store holds a snapshot that cannot be read" in caplog.text)
        store.publish(snapshot(2))
        await soon(lambda: 2 in worker.applied)

    assert worker.applied == [1, 2]


async def test_a_key_of_another_kind_does_not_end_the_worker(
    worker: Worker, store: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else's list under our key is an outage of the store, over when it is gone."""
    store.start()
    with store.client() as client:
        client.rpush(SNAPSHOT_KEY, "not ours")

    async with following(worker):
        await soon(lambda: "the store does not answer" in caplog.text)
        with store.client() as client:
            client.delete(SNAPSHOT_KEY)
        store.publish(snapshot(1))
        await soon(lambda: worker.applied)

    assert worker.applied == [1]


async def test_a_store_that_is_killed_and_comes_back_is_followed_again(
    worker: Worker, store: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its loss and its return are each said once; report and snapshots flow again."""
    store.start().publish(snapshot(1))

    async with following(worker):
        await soon(lambda: worker.applied)
        store.kill()
        await soon(lambda: "the store does not answer" in caplog.text)
        store.start()
        await soon(lambda: reported(store))
        store.publish(snapshot(2))
        await soon(lambda: 2 in worker.applied)

    assert caplog.text.count("the store does not answer") == 1
    assert worker.applied == [1, 2]


async def test_a_lost_announcement_costs_a_while_and_not_the_snapshot(
    worker: Worker, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is read again from time to time, whether or not anybody announced anything."""
    monkeypatch.setattr(snapshots, "_READ_AGAIN_SECONDS", 0.05)
    store.start().publish(snapshot(1))

    async with following(worker):
        await soon(lambda: worker.applied)
        with store.client() as client:
            client.set(SNAPSHOT_KEY, encode_snapshot(snapshot(2)))
        await soon(lambda: 2 in worker.applied)


async def test_the_report_is_there_while_the_worker_is(worker: Worker, store: ValkeyServer) -> None:
    """A worker that stops in order takes its report with it."""
    store.start().publish(snapshot(4))

    async with following(worker):
        await soon(lambda: (said := reported(store)) and said.revision == 4)

    assert reported(store) is None


async def test_what_changes_is_reported_at_once(
    worker: Worker, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An announced change does not wait for the next regular report."""
    monkeypatch.setattr(snapshots, "REPORT_SECONDS", 3600.0)
    store.start()

    async with following(worker):
        await soon(lambda: reported(store))
        worker.state = "draining"
        worker.feed.announce()
        await soon(lambda: (said := reported(store)) and said.state == "draining")


async def test_without_changes_the_report_is_repeated(
    worker: Worker, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that somebody removed, or a store that lost it, has it again soon."""
    monkeypatch.setattr(snapshots, "REPORT_SECONDS", 0.05)
    store.start()

    async with following(worker):
        await soon(lambda: reported(store))
        with store.client() as client:
            client.delete(WORKERS_KEY)
        await soon(lambda: reported(store))


@pytest.mark.parametrize("moment", ["answering", "frozen", "gone"])
async def test_a_cancelled_feed_ends(worker: Worker, store: ValkeyServer, moment: str) -> None:
    """However the store behaves, a feed that is told to end does."""
    store.start().publish(snapshot(1))
    task = asyncio.create_task(worker.feed.run())
    await soon(lambda: worker.applied and reported(store))
    if moment == "frozen":
        store.freeze()
        worker.feed.announce()
    elif moment == "gone":
        store.kill()

    async with asyncio.timeout(30):
        await end(task)

    assert task.cancelled()


async def test_a_feed_may_be_cancelled_at_any_moment(worker: Worker, store: ValkeyServer) -> None:
    """Cancelled after any number of turns of the loop it ends and leaves no report behind."""
    store.start().publish(snapshot(1))
    for turns in range(0, 60, 7):
        task = asyncio.create_task(worker.feed.run())
        for _ in range(turns):
            await asyncio.sleep(0)

        async with asyncio.timeout(30):
            await end(task)

        assert task.cancelled()


def test_resident_memory_is_this_process_own() -> None:
    """A Python process with numpy takes more than 10 MiB and less than all there is."""
    assert 10 << 20 < resident_bytes() < 64 << 30
