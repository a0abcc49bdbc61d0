"""The requests of one generator process: when each is due, and how much of its time is left."""

import time
from array import array
from typing import Any

from numpy.typing import NDArray

__all__ = ["Turns"]


class Turns:
    """The plan's arrays, as Python reads them fastest, and the run's clock.

    `kind`, `rows` and `offset` are the plan's. `deadline` and `timeout` in seconds.
    """

    def __init__(
        self,
        *,
        times: NDArray[Any],
        kind: NDArray[Any],
        rows: NDArray[Any],
        offset: NDArray[Any],
        deadline: float | None,
        timeout: float,
    ) -> None:
        # An array of the standard library gives Python's own numbers, numpy's gives objects
        # that cost a tenth of a microsecond each time.
        self.times = array("d", times.astype("d").tobytes())
        self.kind = array("q", kind.astype("q").tobytes())
        self.rows = array("q", rows.astype("q").tobytes())
        self.offset = array("q", offset.astype("q").tobytes())
        self.deadline = deadline
        self.timeout = timeout
        self.start = 0.0
        """`time.monotonic()` at the run's second 0."""

    def __len__(self) -> int:
        return len(self.times)

    def now(self) -> float:
        """Seconds from the start of the run."""
        return time.monotonic() - self.start

    def left(self, index: int) -> float | None:
        """Seconds until a request's deadline, negative when past; None without one."""
        if self.deadline is None:
            return None
        return self.times[index] + self.deadline - self.now()

    def over(self, index: int) -> bool:
        """Whether a request has waited as long as one waits."""
        return self.now() - self.times[index] > self.timeout
