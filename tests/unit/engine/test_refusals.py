import pytest

from serving.engine.refusals import WorkerWord, refusals_of_all

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
