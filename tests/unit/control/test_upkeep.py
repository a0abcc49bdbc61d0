"""Between the verbs: the store is repaired, and files nobody needs are let go."""

import asyncio
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace
from publisher_kit import Bench, compiled, keeping
from waiting_kit import soon

from serving.config.keys import WorkerReport
from serving.control.publishing.compile import Compiled


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    """A publisher that has published /v1."""
    return await Bench.serving_v1(tmp_path)


async def test_upkeep_fills_a_store_that_was_flushed(bench: Bench) -> None:
    """FLUSHALL costs workers nothing they do not get back."""
    before = await bench.stored()
    async with keeping(bench.publisher):
        bench.store.clear()
        await soon(lambda: bench.store._snapshot is not None)

    assert await bench.stored() == before


async def test_upkeep_notices_the_store_going_and_coming(bench: Bench) -> None:
    """The status tells, and what was lost meanwhile is there again."""
    async with keeping(bench.publisher):
        bench.store.available = False
        await soon(lambda: not bench.publisher.upkeep.store_up)
        bench.store.clear()
        bench.store.available = True
        await soon(lambda: bench.publisher.upkeep.store_up)

    assert (await bench.stored()).revision == 1


async def test_upkeep_follows_another_writer(bench: Bench) -> None:
    """A revision announced by somebody else becomes ours."""
    theirs = replace(await bench.stored(), revision=5, author="other")
    async with keeping(bench.publisher):
        await bench.store.publish(theirs)
        await soon(lambda: bench.publisher.revision == 5)

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
        await soon(lambda: "a" not in staged_names(bench))
        assert staged_names(bench) == set("bcdef12")

        await serve(bench, revisions["2"])
        await bench.publisher.apply(version_of(bench, "3"), author="ann")
        await soon(lambda: "b" not in staged_names(bench))

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
