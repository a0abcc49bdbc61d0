"""What a worker does about versions in quarantine: its table, its upstreams, its first tries."""

import asyncio
import logging
import os
from pathlib import Path

import pytest
from pipeline_kit import Kit, ScriptedUpstream

from serving.config.snapshot import Snapshot
from serving.errors import InvalidArtifact, ModelNotFound, ModelNotReady
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect
from serving.worker.first_tries import FirstTries
from serving.worker.quarantine import Quarantine
from serving.worker.table import Loader

LOG = logging.getLogger("test")
SHA = "2" * 64


def quarantine(data: Path, version: str = "v2", sha256: str = SHA) -> None:
    """Two crashes of a version of `m`."""
    for at in (1.0, 2.0):
        suspects = (Suspect("m", version, sha256),)
        register.record(data, Crash(at=at, worker="w", signal="SIGFPE", suspects=suspects))


class Worker(Kit):
    """A kit whose tables leave out what is in quarantine."""

    def __init__(self, folder: Path, **traffic: object) -> None:
        super().__init__(folder, **traffic)
        self.quarantine = Quarantine(folder, LOG)
        self.loader = Loader(
            self._load, self.metrics, self.ledger, self.clock, shut=self.quarantine.shut
        )

    async def take(self, snapshot: Snapshot) -> None:
        """Replace the table, as a worker does."""
        old = self.pipeline.table
        self.pipeline.table = new = await self.loader.build(snapshot, old)
        await self.loader.retire(old, new)


CANARY = {"canary": {"version": "v2", "weight": 100}}


async def test_a_quarantined_version_is_not_loaded_and_says_why(tmp_path: Path) -> None:
    """Its canary's share goes to production."""
    quarantine(tmp_path)
    worker = Worker(tmp_path, **CANARY)

    await worker.take(worker.snapshot())

    model = worker.pipeline.table.model("m")
    assert set(worker.upstreams) == {"v1", "v3"}
    assert model.answering(model.route.assign(b"1", 0)).version == "v1"
    with pytest.raises(ModelNotReady, match=r"'v2' is quarantined since .* quarantine lift m v2"):
        model.lane("v2")
    with pytest.raises(ModelNotFound):
        model.lane("v9")


async def test_other_bytes_under_the_name_are_not_affected(tmp_path: Path) -> None:
    """What crashed was a file, not a name."""
    quarantine(tmp_path, sha256="f" * 64)
    worker = Worker(tmp_path)

    await worker.take(worker.snapshot())

    assert worker.pipeline.table.model("m").lane("v2").version == "v2"


async def test_quarantined_production_is_refused_by_its_reason(tmp_path: Path) -> None:
    """Nobody else answers for it."""
    quarantine(tmp_path, "v1", "1" * 64)
    worker = Worker(tmp_path)

    await worker.take(worker.snapshot())

    model = worker.pipeline.table.model("m")
    with pytest.raises(ModelNotReady, match="quarantined"):
        model.answering(model.route.assign(None, 0))


async def test_who_waits_for_a_version_that_is_taken_out_is_let_go(tmp_path: Path) -> None:
    """What is queued for it must not run; an ordinary close would wait for it."""
    worker = Worker(tmp_path, **CANARY)
    await worker.take(worker.snapshot())

    class Stuck(ScriptedUpstream):
        async def close(self) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.closed = True
                raise

    stuck = worker.pipeline.table.model("m").lane("v2").upstream = Stuck(lambda x: x)
    quarantine(tmp_path)
    assert worker.quarantine.look()

    await worker.take(worker.snapshot())

    assert stuck.closed


async def test_a_change_is_followed_and_tried_again_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In and out again, without a new revision."""
    monkeypatch.setattr("serving.worker.quarantine._AGAIN_SECONDS", 0.01)
    watch = Quarantine(tmp_path, LOG)
    heard: asyncio.Queue[bool] = asyncio.Queue()
    failures = [InvalidArtifact("not now")]

    async def changed() -> None:
        heard.put_nowait(True)
        if failures:
            raise failures.pop()

    following = asyncio.create_task(watch.follow(changed))
    async with asyncio.timeout(30):
        quarantine(tmp_path)
        await heard.get()
        await heard.get()  # again, after the failure
        register.lift(tmp_path, "m", "v2")
        await heard.get()
    following.cancel()
    await asyncio.wait({following})


# --- first tries ----------------------------------------------------------------------------


def tries(run: Path, number: int, *, serving: bool = True) -> FirstTries:
    """Worker `number`'s."""
    return FirstTries(run, f"worker-{number}", lambda: serving)


def dies(run: Path, word: str, worker: str) -> None:
    """A worker that died of what it tried: its file is not locked any more."""
    (run / f"{SHA}.trial").write_text(f"{word} {worker}")


async def test_one_worker_loads_first_and_the_others_then(tmp_path: Path) -> None:
    """They wait for the outcome, and not for each other after it."""
    one, other = tries(tmp_path, 0), tries(tmp_path, 1)
    order = []

    async def second() -> None:
        async with other.loading("m/v2", SHA):
            order.append("second")

    async with one.loading("m/v2", SHA):
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.1)
        order.append("first")
    await waiting

    assert order == ["first", "second"]
    async with one.loading("m/v2", SHA), other.loading("m/v2", SHA):
        order.append("together")
    assert order[2:] == ["together"]


async def test_no_descriptor_is_closed_that_belongs_to_somebody_else(tmp_path: Path) -> None:
    """A second close would take a socket that was opened meanwhile; libuv aborts for that."""
    one = tries(tmp_path, 0, serving=False)
    async with one.loading("m/v2", SHA):
        pass
    async with one.loading("m/v2", SHA):  # it is known to load: the lock is let go of at once
        others = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]

    for other in others:
        os.close(other)


async def test_a_version_that_another_died_of_loading_is_left_to_it(tmp_path: Path) -> None:
    """That one tries again, at its start; then it is everybody's."""
    dies(tmp_path, "loading", "worker-0")
    with pytest.raises(InvalidArtifact, match=r"worker-0 crashed while it loaded this version"):
        async with tries(tmp_path, 1).loading("m/v2", SHA):
            raise AssertionError

    async with tries(tmp_path, 0, serving=False).loading("m/v2", SHA):
        pass
    async with tries(tmp_path, 1).loading("m/v2", SHA):
        pass


async def test_a_version_that_is_refused_leaves_no_trace(tmp_path: Path) -> None:
    """It failed; nobody died."""
    with pytest.raises(InvalidArtifact, match="bad"):
        async with tries(tmp_path, 0).loading("m/v2", SHA):
            raise InvalidArtifact("bad")

    async with tries(tmp_path, 1).loading("m/v2", SHA):
        pass


async def test_one_worker_runs_the_first_copies(tmp_path: Path) -> None:
    """The others drop theirs, until it has survived or gives up."""
    one, other = tries(tmp_path, 0), tries(tmp_path, 1)

    assert one.may_copy(SHA)
    assert one.may_copy(SHA)
    assert not other.may_copy(SHA)
    one.close()
    assert other.may_copy(SHA)

    other._has_survived(SHA)
    assert one.may_copy(SHA)
    assert other.may_copy(SHA)
    assert tries(tmp_path, 2).may_copy(SHA)


async def test_copies_that_another_died_of_are_left_to_it(tmp_path: Path) -> None:
    """So that only one of them is away."""
    dies(tmp_path, "copying", "worker-0")

    assert not tries(tmp_path, 1).may_copy(SHA)
    assert tries(tmp_path, 0).may_copy(SHA)


async def test_where_nothing_can_be_written_everybody_tries(tmp_path: Path) -> None:
    """A missing folder, a full disk."""
    one = tries(tmp_path / "gone", 0)

    assert one.may_copy(SHA)
    async with one.loading("m/v2", SHA):
        pass
