"""The counts that workers share, read and written by several of them in one process."""

from pathlib import Path

import pytest

from serving.clock import ManualClock
from serving.worker import spread_table
from serving.worker.spread_table import SpreadTable


class Node:
    """Workers 0, 1 and 2 of a node, all alive and known to each other."""

    def __init__(self, run: Path) -> None:
        self.clock = ManualClock()
        self.run = run
        self.tables = [self.start(number) for number in range(3)]
        for table in (*self.tables, *self.tables):
            table.beat()

    def start(self, number: int) -> SpreadTable:
        """A worker that comes, or comes back."""
        return SpreadTable(self.run, number, self.clock)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """One with a folder of its own."""
    return Node(tmp_path)


def test_each_sees_what_the_others_have(node: Node) -> None:
    """Counts are there for everybody as soon as they are written."""
    first, second, third = node.tables
    second.count(5)
    third.count(7)

    assert first.ready([1, 2]) == {1: 5, 2: 7}
    assert first.opens([2, 1]) == [7, 5]


def test_the_others_begin_behind_oneself(node: Node) -> None:
    """So that workers that look at the same time do not all choose the same one."""
    assert [table.beat() for table in node.tables] == [[1, 2], [2, 0], [0, 1]]


def test_who_shows_no_sign_of_life_is_given_nothing(node: Node) -> None:
    """A worker that was stopped or killed, and nobody has noticed yet."""
    node.clock.advance(spread_table.STALE_SECONDS)
    first, second, _ = node.tables
    second.beat()

    assert first.ready([1, 2]) == {1: 0}
    assert first.beat() == [1]


def test_who_leaves_is_given_nothing(node: Node) -> None:
    """From that moment on, without waiting until it counts as dead."""
    first, second, _ = node.tables
    second.leave()

    assert first.ready([1, 2]) == {2: 0}


def test_what_waits_for_a_worker_counts_as_its_own(node: Node) -> None:
    """For everybody, whoever gave it; and once only when it has been taken."""
    first, second, third = node.tables
    second.giving(2)
    waiting = first.ready([2])
    third.count(1)
    third.took_all()

    assert waiting == {2: 1}
    assert first.ready([2]) == {2: 1}


def test_what_could_not_be_given_does_not_count(node: Node) -> None:
    """The giver takes it back."""
    first, second, _ = node.tables
    second.giving(2)
    second.giving(2, -1)

    assert first.ready([2]) == {2: 0}


def test_who_takes_nothing_is_given_no_more(node: Node) -> None:
    """A worker that was stopped a moment ago swallows no more than these few."""
    first, second, third = node.tables
    for _ in range(spread_table.MOST_WAITING):
        second.giving(2)
    before = first.ready([2])
    third.took_all()

    assert before == {}
    assert first.ready([2]) == {2: 0}


def test_a_worker_that_comes_back_has_nothing_waiting(node: Node) -> None:
    """What was given to the one that died is gone with it."""
    first = node.tables[0]
    first.giving(2)
    again = node.start(2)
    again.beat()
    again.took_all()

    assert first.ready([2]) == {2: 0}


def test_a_giver_that_died_while_it_counted_is_forgotten(node: Node) -> None:
    """It had counted and not given; the receiver, finding nothing, puts that right."""
    first, second, third = node.tables
    first.giving(2)
    del first
    third.took_all()

    assert second.ready([2]) == {2: 0}


def test_another_boot_has_another_table(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock began anew, so old signs of life could look young for ever."""
    boot = tmp_path / "boot_id"
    boot.write_text("01234567-89ab\n")
    monkeypatch.setattr(spread_table, "_BOOT", boot)

    assert node.start(0).beat() == []
