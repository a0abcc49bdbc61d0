"""Who waits for a session, and who goes into the next run. Decides; resolves nobody itself."""

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

import msgspec
from numpy.typing import NDArray

from serving.errors import ServingError
from serving.models.batch import Feed, key
from serving.models.timing import RunTimes

__all__ = ["DeadlineQueue", "Inference", "Waiter", "Waiting"]


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

    def _pop(self) -> Waiting:
        one = heappop(self._heap)
        self.rows -= one.rows
        return one

    def prune(self, now: float) -> None:
        """Forget everybody whose caller has left or whose time is up."""
        self._heap = [one for one in self._heap if self._alive(one, now)]
        heapify(self._heap)
        self.rows = sum(one.rows for one in self._heap)

    def expire(self, now: float) -> None:
        """Forget those at the front whose caller has left or whose time is up."""
        while self._heap and not self._alive(self._heap[0], now):
            self._pop()

    def clear(self) -> list[Waiting]:
        """Empty the queue and return who was in it."""
        left, self._heap, self.rows = self._heap, [], 0
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
