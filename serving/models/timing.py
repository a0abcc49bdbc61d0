"""How long a run takes, learned from runs: t(b), for batch sizes b in powers of two.

Pure bookkeeping: the caller measures. Seconds everywhere.

Two things are learned. How long callers wait for a run is wall time, whatever it was spent on.
Whether a run belongs in a thread depends on how long it would keep the loop at work, and of that
wall time says too much where another thread of this process works in Python too: a run lets go
of the interpreter and may get it back a switch interval later, in a thread as on the loop. So a run
that looks long counts as long only if its thread's CPU time says so.
"""

from typing import Final

__all__ = ["Backlog", "RunTimes"]

INLINE_SECONDS: Final = 200e-6
"""Runs shorter than this stay on the event loop: handing one to a thread and back costs
about 55 µs (performance reference, section 5), and a longer one would hold up the sockets."""

_TO_THREAD: Final = 1.25 * INLINE_SECONDS  # hysteresis, so that a mean near the limit
_TO_LOOP: Final = 0.8 * INLINE_SECONDS  # does not move a version to and fro
_WEIGHT: Final = 0.1
_IMPROVES: Final = 0.97
_OUTLIER: Final = 4.0  # a run cut short by the kernel's scheduler counts for no more
_OVERHEAD: Final = 10e-6  # seconds a run costs around itself, so that batches pay at all
_TICK: Final = 1e-9  # the least that a clock tells, so that 0 can say: not known
_REVIEW: Final = 64
_FORGET: Final = 512
_STEEPEST: Final = 2.5


def _bucket(rows: int) -> int:
    return (rows - 1).bit_length()


class RunTimes:
    """Moving means of run times per batch size, and what follows from them.

    Args:
        limit: Most rows in one run.
        always_slow: Never call a run short, whatever was measured: its length depends on
            the values (a Loop).
    """

    def __init__(self, limit: int, *, always_slow: bool = False) -> None:
        self._limit = limit
        self._pinned = always_slow
        buckets = _bucket(limit) + 1
        self._mean = [0.0] * buckets  # 0: not known
        self._busy = [0.0] * buckets  # mean CPU time, at most wall time; 0: not known
        self._slow = [always_slow] * buckets
        self._seen = [0] * buckets  # the run at which this size was last measured
        self._runs = 0
        self.preferred = limit
        """Rows up to which a larger batch still makes a row cheaper (by 3 % or more).

        Larger ones are tried again once their last measurement is 512 runs old.
        """
        self.doubtful = False
        """Whether the last run on the loop looked long: the next should be given CPU time too."""

    def observe(self, rows: int, seconds: float, busy: float | None = None) -> None:
        """Learn from one whole run.

        Args:
            rows: How many it answered.
            seconds: How long it took.
            busy: CPU seconds of the thread that it ran in, if they were measured.
        """
        i = (rows - 1).bit_length()
        mean = self._mean[i]
        mean = mean + _WEIGHT * (min(seconds, _OUTLIER * mean) - mean) if mean else seconds
        self._mean[i] = mean
        self._seen[i] = self._runs = self._runs + 1
        self.doubtful = seconds > INLINE_SECONDS
        if busy is not None:
            self._learn_busy(i, min(busy, seconds))
        elif not self.doubtful:
            self._learn_busy(i, seconds)
        if not self._runs % _REVIEW:
            self._review()

    def _learn_busy(self, i: int, busy: float) -> None:
        busy = max(busy, _TICK)
        mean = self._busy[i]
        mean = mean + _WEIGHT * (min(busy, _OUTLIER * mean) - mean) if mean else busy
        self._busy[i] = mean
        if self._slow[i]:
            if mean < _TO_LOOP and not self._pinned:
                self._slow[i] = False
        elif mean > _TO_THREAD:
            self._slow[i] = True

    def observe_stopped(self, rows: int, seconds: float) -> None:
        """Learn from a run that was ended before its time: it takes longer than this."""
        i = _bucket(rows)
        self._mean[i] = max(self._mean[i], 2.0 * seconds)
        self._busy[i] = max(self._busy[i], 2.0 * seconds)
        self._slow[i] = self._slow[i] or self._busy[i] > _TO_THREAD

    def expect(self, rows: int) -> float:
        """Guess how long a run of this many rows takes; 0.0 when nothing was ever measured."""
        i = (rows - 1).bit_length()
        mean = self._mean[i]
        if not mean:
            return self._guess(self._mean, i)
        half = self._mean[i - 1] if i else 0.0
        return mean if not half or mean <= _STEEPEST * half else self._guess(self._mean, i)

    @staticmethod
    def _guess(means: list[float], i: int) -> float:
        """Derive one size from its neighbours: not above linear growth, not above a larger one."""
        above = next((mean for mean in means[i:] if mean), 0.0)
        for j in range(i - 1, -1, -1):
            if means[j]:
                # A size that once looked far dearer than its half was disturbed, or stopped.
                linear = means[j] * 1.25 * (1 << (i - j))
                return min(above, linear) if above else linear
        return above

    def slow(self, rows: int) -> bool:
        """Whether a run of this many rows belongs in a thread rather than on the loop."""
        i = (rows - 1).bit_length()
        if self._busy[i] or self._pinned:
            return self._slow[i]
        guess = self._guess(self._busy, i)
        return not guess or guess > _TO_THREAD  # what was never measured may be endless

    def _review(self) -> None:
        """Choose `preferred` again, and forget sizes nobody has run for long."""
        best = float("inf")
        self.preferred = self._limit
        for i, mean in enumerate(self._mean):
            if not mean:
                continue
            if self._runs - self._seen[i] > _FORGET:
                self._mean[i] = self._busy[i] = 0.0
                self._slow[i] = self._pinned
                continue
            rows = min(1 << i, self._limit)
            cost = (mean + _OVERHEAD) / rows
            if cost < _IMPROVES * best:
                best, self.preferred = cost, self._limit
            elif self.preferred == self._limit:
                self.preferred = max(rows // 2, 1)


class Backlog:
    """How much longer than its runs a queue really takes to drain.

    While work is waiting, the time from one finished run to the next is compared with the
    run itself; reading sockets, decoding and other models make up the rest. `slowdown` is
    the moving mean of that ratio, at least 1.
    """

    def __init__(self) -> None:
        self.slowdown = 1.0
        self._finished = 0.0
        self._continuous = False

    def finished(self, now: float, run_seconds: float, *, more: bool) -> None:
        """Note a finished run; `more` says whether work is waiting for the next one."""
        if self.slowdown == 1.0 and not more and not self._continuous:
            return
        span = now - self._finished if self._continuous else run_seconds
        ratio = max(1.0, span / run_seconds) if run_seconds > 0 else 1.0
        # Each run counts 5 %, a long one as much as a second's worth of short ones.
        weight = max(0.05, min(1.0, span))
        self.slowdown += weight * (ratio - self.slowdown)
        self._finished = now
        self._continuous = more
