"""Fallback: a request that the canary failed is asked once more, of production.

Decides only; `Pipeline` asks. A request falls back that was drawn for the canary (not one that
asked for it by name or was put on it), if the failure is the canary's, time is left, and the budget
is not used up. What the caller did wrong, and what both versions share, is not asked twice.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotReady,
    Overloaded,
    ServingError,
)
from serving.metrics import Counter, MetricsFile
from serving.traffic.table import Decision
from serving.types import Call
from serving.upstream import Inference
from serving.worker.join import Joined
from serving.worker.lane import Lane
from serving.worker.table import LiveModel

__all__ = ["BURST", "Budget", "Fallback", "given_up_at", "insist_on_shape"]

BURST: Final = 20.0
"""Second tries that are there at once: a worker with few requests has earned none yet when its
canary begins to fail."""

_LEAST_SECONDS: Final = 1e-3
"""With less time than this nobody is asked: it would be refused."""

_LOG: Final = logging.getLogger("fallback")
_ITS_OWN: Final = (InferenceFailed, ModelNotReady, Overloaded, DeadlineExceeded)


def given_up_at(
    reserve: float | None, *, arrived: float, asked: float, deadline: float
) -> float:  # fmt: skip
    """When a canary that has not answered is given up. Everything in (monotonic) seconds.

    Args:
        reserve: kept for production; None: a third of the time from arrival to the deadline.
        arrived: when the request came.
        asked: when the canary is asked. It gets at least half of what is left then: a caller in
            a hurry, or slow features, are not its fault.
        deadline: when the answer is due.
    """
    kept = reserve if reserve is not None else (deadline - arrived) / 3
    return max(deadline - kept, (asked + deadline) / 2)


def insist_on_shape(joined: Joined, inference: Inference, *, batchable: bool) -> None:
    """Refuse an answer that is none: other outputs than asked for, or for other rows.

    Raises:
        InferenceFailed: saying what is wrong.
    """
    outputs = inference.outputs
    if len(outputs) != len(joined.outputs):
        raise InferenceFailed(f"{len(outputs)} outputs came back, not {len(joined.outputs)}")
    for name, output in zip(joined.outputs, outputs, strict=True):
        if batchable and output.shape[:1] != (joined.rows,):
            raise InferenceFailed(
                f"output '{name}' has the shape {list(output.shape)}, for {joined.rows} rows"
            )


class Budget:
    """A token bucket of one model in this worker, that holds at most `BURST` second tries.

    Every request earns `share`. Only those drawn for the canary come by here, so each of them
    earns for all that its probability stands for: the others pay nothing for the count.
    """

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = BURST

    def earn(self, share: float, probability: float) -> None:
        """A request was drawn for the canary with this probability."""
        self.tokens = min(BURST, self.tokens + share / probability)

    def spend(self, share: float) -> bool:
        """Take one second try, if there is one. With a share of nothing there never is."""
        if self.tokens < 1.0 or share <= 0.0:
            return False
        self.tokens -= 1.0
        return True


class Fallback:
    """The budgets of all models of this worker, and what became of the second tries."""

    def __init__(self, metrics: MetricsFile, now: Callable[[], float]) -> None:
        self._metrics = metrics
        self._now = now
        self._budgets: dict[str, Budget] = {}
        self._counters: dict[tuple[str, str], Counter] = {}

    def earn(self, model: LiveModel, decision: Decision) -> None:
        """A request was drawn for the canary."""
        budget = self._budgets.get(model.name)
        if budget is None:
            budget = self._budgets[model.name] = Budget()
        budget.earn(model.config.traffic.fallback.budget, decision.probability)

    def due(self, model: LiveModel, call: Call) -> float:
        """By when the canary, if asked now, must have answered."""
        return given_up_at(
            model.config.traffic.fallback.reserve,
            arrived=call.arrived,
            asked=self._now(),
            deadline=call.deadline,
        )

    def too_late(self, lane: Lane, call: Call, asked: float, answered: float) -> bool:
        """Whether a canary of this model would have been given up before an answer came."""
        fallback = lane.config.traffic.fallback
        return fallback.on_canary_error == "production" and answered > given_up_at(
            fallback.reserve, arrived=call.arrived, asked=asked, deadline=call.deadline
        )

    def takes(self, model: LiveModel, call: Call, error: Exception) -> bool:
        """Whether a request that the canary failed like this is asked again, of production."""
        unexpected = not isinstance(error, ServingError)
        if not unexpected and not isinstance(error, _ITS_OWN):
            return False
        if unexpected:
            _LOG.error("a canary of %s failed unexpectedly", model.name, exc_info=error)
        if call.deadline - self._now() < _LEAST_SECONDS:
            self.count(model.name, "no_time")
            return False
        if not self._budgets[model.name].spend(model.config.traffic.fallback.budget):
            self.count(model.name, "no_budget")
            return False
        return True

    @contextmanager
    def counted(self, model: str) -> Iterator[None]:
        """Count how a second try ends: answered, failed, or abandoned by the client."""
        outcome = "abandoned"
        try:
            yield
            outcome = "answered"
        except Exception:
            outcome = "failed"
            raise
        finally:
            self.count(model, outcome)

    def count(self, model: str, outcome: str) -> None:
        """Count what became of a request that the canary failed."""
        counter = self._counters.get((model, outcome))
        if counter is None:
            counter = self._counters[model, outcome] = self._metrics.counter(
                "sluice_fallback_total", model=model, outcome=outcome
            )
        counter.inc()
