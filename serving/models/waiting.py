"""Who waits for a session, and who goes into the next run. Decides; resolves nobody itself."""

import math
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Final, Protocol

import msgspec
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.models.batch import Feed, key
from serving.models.timing import RunTimes

__all__ = ["SHARE", "DeadlineQueue", "Inference", "Waiter", "Waiting"]

SHARE: Final = 0.6
"""Part of the remaining time that waiting and running may be expected to take. In simulation
60 % answers 90–97 % of capacity in time under overload, 100 % loses 18 points (reliability
reference, section 2.2)."""

_MORE_TIME: Final = 1.5
"""Somebody who waits must have so many times the time of a request for it to go before others."""

_SPARE: Final = (1 - SHARE) / 2
"""Part of the time it had that a waiting request keeps to spare when others go before it."""


class Inference(msgspec.Struct, gc=False):
    """What one request got from a model version.

    `outputs` are aligned with the names asked for and may be views of a shared array.
    `batch_rows` counts the rows of all requests in the same run.
    """

    outputs: list[NDArray[Any]]
    queue_seconds: float
    compute_seconds: float
    batch_rows: int


class Waiter(Protocol):
    """Who is told what came of a request, once: a future, or somebody who is called at once.

    It may ask for the next inference while it is given its result, but must not while it is given
    an error: that may be in the middle of the queue.
    """

    def done(self) -> bool:
        """Whether it has been told, or has left."""
        ...

    def set_result(self, result: Inference, /) -> None:
        """Give it its answer."""
        ...

    def set_exception(self, exception: ServingError, /) -> None:
        """Tell it why there is none."""
        ...


class Waiting(msgspec.Struct, order=True):
    """A request in the queue, ordered by deadline, then by arrival (`sequence` is unique)."""

    deadline: float
    sequence: int
    waiter: Waiter
    feed: Feed
    rows: int
    outputs: tuple[str, ...]
    queued_at: float
    shadow: bool


class DeadlineQueue:
    """Requests by deadline, the earliest first. Its user bounds it.

    Args:
        inputs: Names of the model's inputs.
        alive: Says whether somebody still waits for a request at this monotonic second, and
            ends the request if its time is up.
        drop: Ends a request that cannot be answered in time.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        *,
        alive: Callable[[Waiting, float], bool],
        drop: Callable[[Waiting], None],
    ) -> None:
        self.rows = 0
        """Rows of everything that waits."""
        self.latest = 0.0
        """No deadline in the queue is later; 0.0 if nothing waits."""
        self._heap: list[Waiting] = []
        self._inputs = inputs
        self._alive = alive
        self._drop = drop

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def earliest(self) -> float:
        """The first deadline; infinity if nothing waits."""
        return self._heap[0].deadline if self._heap else float("inf")

    def push(self, one: Waiting) -> None:
        """Add a request."""
        heappush(self._heap, one)
        self.rows += one.rows
        self.latest = max(self.latest, one.deadline)

    def _pop(self) -> Waiting:
        one = heappop(self._heap)
        self.rows -= one.rows
        if not self._heap:
            self.latest = 0.0
        return one

    def yields(self, deadline: float, rows: int, now: float, *, each: float) -> bool:
        """Whether a request may go before those with later deadlines: all would be in time.

        Itself it must find 40 % of its time to spare, like any other. Those that it delays were
        taken when they had as much to spare; half of that they may lose, and so those with much
        time neither shut out those with little nor are shut out by them.

        Nobody is looked at unless somebody has much more time: requests of one kind differ by what
        they lost on their way, and are nearly all of those refused.

        Args:
            deadline: When its answer is due.
            rows: In this request.
            now: Monotonic second.
            each: Seconds that a row is expected to take.
        """
        if self.latest - now < _MORE_TIME * (deadline - now):
            return False
        before = rows
        most = SHARE * (deadline - now) / each if each else math.inf
        behind = []
        for one in self._heap:
            if one.deadline > deadline:
                behind.append((one.deadline, one.rows, one.queued_at))
            else:
                before += one.rows
                if before >= most:
                    return False
        if before >= most:
            return False
        behind.sort()
        for theirs, more, since in behind:
            before += more
            if now + before * each > theirs - _SPARE * (theirs - since):
                return False
        return True

    def prune(self, now: float) -> None:
        """Forget everybody whose caller has left or whose time is up."""
        self._heap = [one for one in self._heap if self._alive(one, now)]
        heapify(self._heap)
        self.rows = sum(one.rows for one in self._heap)
        self.latest = max((one.deadline for one in self._heap), default=0.0)

    def expire(self, now: float) -> None:
        """Forget those at the front whose caller has left or whose time is up."""
        while self._heap and not self._alive(self._heap[0], now):
            self._pop()

    def clear(self) -> list[Waiting]:
        """Empty the queue and return who was in it."""
        left, self._heap, self.rows, self.latest = self._heap, [], 0, 0.0
        return left

    def take(self, now: float, times: RunTimes, max_rows: int) -> list[Waiting]:
        """Take out the members of the next run; empty if nobody waits any more.

        Args:
            now: Monotonic second.
            times: How long runs take.
            max_rows: Most rows in the run; 1 if requests cannot share one.
        """
        while self._heap:
            one = self._pop()
            if not self._alive(one, now):
                continue
            # Running what will be late would only make the next one late too. The last one
            # standing runs all the same, else a wrong estimate would never be corrected.
            if self._heap and one.deadline < now + times.expect(one.rows):
                self._drop(one)
                continue
            return self._fill(one, now, times, max_rows) if self._heap else [one]
        return []

    def _fill(self, first: Waiting, now: float, times: RunTimes, max_rows: int) -> list[Waiting]:
        """Add what may share the first one's run without making it late."""
        limit = min(times.preferred, max_rows)
        while limit > first.rows and now + times.expect(limit) > first.deadline:
            limit = (limit + 1) // 2
        batch, rows = [first], first.rows
        shape = key(first.feed, self._inputs, rows) if rows < limit else None
        if shape is None:
            return batch
        others = []
        while self._heap and rows < limit:
            one = self._pop()
            if not self._alive(one, now):
                continue
            if key(one.feed, self._inputs, one.rows) != shape:
                others.append(one)
            elif rows + one.rows > limit:
                others.append(one)  # and no smaller one may overtake it
                break
            else:
                batch.append(one)
                rows += one.rows
        for one in others:
            self.push(one)
        return batch
