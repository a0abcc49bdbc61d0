from pathlib import Path
from typing import Any

import pytest

from serving.engine.refusals import OwnRefusal, WorkerWord, refusals_of_all
from serving.worker.private import PrivateSocket

PIDS = {"worker-0": 10, "worker-1": 11}


def word(number: int, *, revision: int = 0, refused: int = 3, pid: int = 0) -> WorkerWord:
    """A worker that serves nothing and has refused revision 3, unless told otherwise."""
    return WorkerWord(
        worker=f"worker-{number}",
        pid=pid or 10 + number,
        revision=revision,
        refused_revision=refused,
        refused_reason=f"reason {number}",
    )


def test_every_worker_has_refused_and_serves_nothing() -> None:
    """Their reasons are given by name."""
    assert refusals_of_all(3, [word(1), word(0)], PIDS) == [
        "worker-0: reason 0",
        "worker-1: reason 1",
    ]


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        (3, []),
        (0, [word(0, refused=0), word(1, refused=0)]),
        (3, [word(0)]),
        (3, [word(0), word(1, refused=2)]),
        (3, [word(0), word(1, revision=2)]),
        (3, [word(0), word(1, pid=99)]),
        (3, [word(0), word(2)]),
    ],
)
def test_there_is_hope_while_one_worker_may_still_serve(
    revision: int, words: list[WorkerWord]
) -> None:
    """It is silent, still loading, serves an older revision, or is another process by now."""
    assert refusals_of_all(revision, words, PIDS) == []


async def answered(folder: Path, *words: tuple[int, int, str]) -> list[str]:
    """What comes of asking a worker that says (revision, refused revision, reason) in turn."""
    turns = iter(words)

    def readyz(_: dict[str, str]) -> tuple[int, Any]:
        revision, refused, reason = next(turns)
        body = {"ready": False, "revision": revision, "refused_revision": refused}
        return 503, {**body, "refused_reason": reason}

    private = PrivateSocket(folder / "worker-0.sock", {"GET /readyz": readyz})
    await private.start()
    try:
        own = OwnRefusal()
        return [await own.of(folder / "worker-0.sock", 7) for _ in words]
    finally:
        await private.stop()


async def test_a_worker_that_refuses_twice_is_believed(tmp_path: Path) -> None:
    """The first time it may be about its disk, whose snapshot the store's replaces."""
    bad = (0, 3, "no such file")

    assert await answered(tmp_path, bad, bad) == ["", "no such file"]
    assert await answered(tmp_path, bad, (0, 4, "another"), (4, 0, "")) == ["", "", ""]


async def test_a_worker_that_serves_something_refuses_nothing(tmp_path: Path) -> None:
    """It goes on with what it has."""
    assert await answered(tmp_path, (2, 3, "no such file"), (2, 3, "no such file")) == ["", ""]


async def test_a_worker_that_does_not_answer_has_not_refused(tmp_path: Path) -> None:
    """It may be starting."""
    own = OwnRefusal()

    assert [await own.of(tmp_path / "nobody.sock", None) for _ in range(2)] == ["", ""]
