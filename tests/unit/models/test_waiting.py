import model_kit
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.models.timing import RunTimes
from serving.models.waiting import DeadlineQueue, Waiting

NOW = 100.0


class Line:
    """A queue whose requests are all alive until their deadline, and a note of the dropped."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self.gone: set[int] = set()
        self.queue = DeadlineQueue(["X"], alive=self.alive, drop=self.drop)
        self.times = RunTimes(64)
        self.times.observe(1, 1e-6)

    def alive(self, one: Waiting, now: float) -> bool:
        """Say so while its time lasts and its caller stays."""
        return one.deadline > now and one.sequence not in self.gone

    def drop(self, one: Waiting) -> None:
        """Note it."""
        self.dropped.append(one.sequence)

    def push(self, sequence: int, deadline: float, rows: int = 1, **feed: object) -> None:
        """Queue a request."""
        data = feed or model_kit.row(*[sequence] * rows)
        # A queue never touches the waiter: deciding who lives is its user's business.
        self.queue.push(Waiting(deadline, sequence, None, data, rows, ("Y",), NOW, False))

    def take(self, max_rows: int = 64) -> list[int]:
        """Take the next run's members."""
        return [one.sequence for one in self.queue.take(NOW, self.times, max_rows)]


@given(st.lists(st.floats(NOW + 1, NOW + 1000), min_size=1, max_size=30))
def test_requests_leave_by_deadline_then_by_arrival(deadlines: list[float]) -> None:
    """Earliest deadline first; among equals, first come, first served."""
    line = Line()
    for sequence, deadline in enumerate(deadlines):
        line.push(sequence, deadline)

    order = [line.take(1)[0] for _ in deadlines]

    assert order == sorted(range(len(deadlines)), key=lambda i: (deadlines[i], i))
    assert len(line.queue) == line.queue.rows == 0


def test_a_batch_holds_at_most_its_rows_and_nobody_overtakes() -> None:
    """A request that does not fit ends the batch, even if a later one would fit."""
    line = Line()
    for sequence, rows in enumerate([3, 4, 2, 1]):
        line.push(sequence, NOW + 1 + sequence, rows)

    assert [line.take(8), line.take(8)] == [[0, 1], [2, 3]]


def test_a_request_of_another_shape_waits_for_its_own_run() -> None:
    """It keeps its place in the queue."""
    line = Line()
    line.push(0, NOW + 1)
    line.push(1, NOW + 2, X=np.zeros((1, 7), "<f4"))
    line.push(2, NOW + 3)

    assert [line.take(), line.take()] == [[0, 2], [1]]


def test_the_dead_are_not_run() -> None:
    """Neither those whose callers left nor those whose time is up reach a batch."""
    line = Line()
    for sequence, deadline in enumerate([NOW - 1, NOW + 1, NOW + 2, NOW]):
        line.push(sequence, deadline)
    line.gone.add(1)

    assert line.take() == [2]
    assert line.take() == []


def test_a_request_that_would_be_late_makes_way_for_one_that_would_not() -> None:
    """With 100 ms a run and 50 ms left, running it would help nobody."""
    line = Line()
    line.times = RunTimes(1)
    line.times.observe(1, 0.1)
    line.push(0, NOW + 0.05)
    line.push(1, NOW + 1.0)

    assert line.take(1) == [1]
    assert line.dropped == [0]


def test_the_last_one_standing_runs_against_all_odds() -> None:
    """A wrong estimate must be corrected by a run some time."""
    line = Line()
    line.times = RunTimes(1)
    line.times.observe(1, 10.0)
    line.push(0, NOW + 0.05)

    assert line.take(1) == [0]


def test_a_batch_is_kept_small_enough_for_its_earliest_deadline() -> None:
    """With 1 ms a row and 5 ms left for the first, four rows go, not sixty-four."""
    line = Line()
    line.times = RunTimes(64)
    for rows in (1, 2, 4, 8, 16, 32, 64):
        line.times.observe(rows, rows * 1e-3)
    for sequence in range(64):
        line.push(sequence, NOW + (0.005 if sequence == 0 else 10.0))

    assert len(line.take(64)) == 4


def test_pruning_keeps_order_and_count() -> None:
    """Those who left no longer count against the bound."""
    line = Line()
    for sequence in range(6):
        line.push(sequence, NOW + 10 - sequence, rows=2)
    line.gone.update((0, 3))

    line.queue.prune(NOW)

    assert len(line.queue) == 4
    assert line.queue.rows == 8
    assert line.queue.earliest == NOW + 5
    assert line.take(8) == [5, 4, 2, 1]
    assert line.queue.earliest == float("inf")


def test_only_the_front_expires() -> None:
    """Behind the first who still has time nobody can be late."""
    line = Line()
    for sequence, deadline in enumerate([NOW - 2, NOW - 1, NOW + 1]):
        line.push(sequence, deadline)

    line.queue.expire(NOW)

    assert [one.sequence for one in line.queue.clear()] == [2]
    assert line.queue.rows == 0


# --- who may go before others -----------------------------------------------------------------


def test_a_request_with_little_time_may_go_before_those_with_much() -> None:
    """A second of work with a minute to spare does not keep out who has half a second."""
    line = Line()
    for sequence in range(10):
        line.push(sequence, NOW + 60)

    assert line.queue.yields(NOW + 0.5, 1, NOW, each=0.1)


def test_those_with_less_time_still_count() -> None:
    """Behind its equals a request waits, and must find 40 % of its time to spare."""
    line = Line()
    for sequence in range(4):
        line.push(sequence, NOW + 1)
    line.push(9, NOW + 60)

    assert line.queue.yields(NOW + 1, 1, NOW, each=0.119)
    assert not line.queue.yields(NOW + 1, 1, NOW, each=0.12)


def test_nobody_who_waits_is_made_late_by_one_who_goes_before_them() -> None:
    """Who has 10 s of which 8 are spoken for has no time to give away."""
    line = Line()
    for sequence in range(8):
        line.push(sequence, NOW + 10)

    assert not line.queue.yields(NOW + 2, 1, NOW, each=1.0)
    assert line.queue.yields(NOW + 2, 1, NOW, each=0.85)


@given(st.lists(st.floats(NOW + 1, NOW + 1000), min_size=1, max_size=30))
def test_no_deadline_in_the_queue_is_later_than_the_latest(deadlines: list[float]) -> None:
    """The bound holds while requests come and go, and is forgotten with the last of them."""
    line = Line()
    for sequence, deadline in enumerate(deadlines):
        line.push(sequence, deadline)
        assert line.queue.latest == max(deadlines[: sequence + 1])
    line.take(64)
    while len(line.queue):
        line.take(64)

    assert line.queue.latest == 0.0
