"""Admit: who is calling, by when the answer is due, and whether there is room at all.

The finer question, whether a version's queue can meet the deadline, is answered where the
queue is: `serving.models.batcher` refuses before it queues. Here it is asked whether the event loop
can: where models are quick it is the loop that is short, and nobody else would notice.
"""

import asyncio
from typing import Final

from serving.clock import Clock, SystemClock
from serving.config.identity import IdentityTable, require
from serving.config.schema import Limits
from serving.errors import DeadlineExceeded, InvalidRequest, Overloaded
from serving.metrics import MetricsFile
from serving.models.waiting import SHARE
from serving.types import Call, InferRequest, Principal, Role

__all__ = ["Admission", "deadline_of"]

_MANY: Final = 32
"""Requests in flight from which the loop's turns are measured: with fewer none is long."""

_TURNS: Final = 4
"""A request by key takes four turns of the loop: it is read in one, its features come in the next,
it runs in the third, and in the fourth its answer leaves."""

_WEIGHT: Final = 0.25


def deadline_of(
    arrived: float, configured: float, asked: float | None, parameter: object, longest: float
) -> float:
    """When an answer is due, in monotonic seconds.

    Args:
        arrived: when the request's first byte came.
        configured: seconds the model's configuration allows; callers only shorten it.
        asked: seconds the transport's header asks for.
        parameter: the OIP `timeout` parameter in microseconds, None or 0 if not given.
        longest: seconds nobody gets more than.

    Raises:
        InvalidRequest: the parameter is no number of microseconds.
    """
    seconds = min(configured, longest)
    if asked is not None and asked < seconds:
        seconds = asked
    if parameter:
        if not isinstance(parameter, int) or isinstance(parameter, bool) or parameter < 0:
            raise InvalidRequest("parameter 'timeout' must be a positive integer of microseconds")
        seconds = min(seconds, parameter * 1e-6)
    return arrived + seconds


class Admission:
    """The gate in front of the pipeline. Holds at most `limits.max_in_flight` requests.

    Fewer if the loop's turns grow long: what a turn has to do is what came in the last one, so
    a loop that takes in more than it can answer is slower with every turn, until all are late.
    """

    def __init__(
        self,
        identity: IdentityTable,
        limits: Limits,
        metrics: MetricsFile,
        clock: Clock | None = None,
    ) -> None:
        self.identity = identity
        self.in_flight = 0
        self.turn = 0.0
        """Moving mean of a turn of the loop, in seconds, as of when many were last in flight."""
        self._now = (clock or SystemClock()).monotonic
        self._turn_began: float | None = None
        self._limit = limits.max_in_flight
        self._many = min(_MANY, self._limit)
        self._longest = float(limits.max_deadline)
        self._gauge = metrics.gauge("sluice_in_flight_requests")

    def authorize(self, authorization: str | None, role: Role) -> Principal:
        """Check a credential and its role. Raises Unauthenticated, PermissionDenied."""
        principal = self.identity.identify(authorization)
        require(principal, role)
        return principal

    def enter(self, request: InferRequest, call: Call, configured: float, now: float) -> Principal:
        """Let a request in and set its deadline; `leave` must follow.

        Raises:
            Unauthenticated, PermissionDenied: by credential.
            DeadlineExceeded: the time given has already passed.
            Overloaded: too many requests in flight (`reason` is `in_flight`), or the loop will not
                have come round often enough by the deadline (`loop`).
        """
        principal = call.principal or self.authorize(call.authorization, "infer")
        call.deadline = deadline_of(
            call.arrived,
            configured,
            call.timeout,
            request.parameters.get("timeout") if request.parameters else None,
            self._longest,
        )
        if call.deadline <= now:
            raise DeadlineExceeded("the deadline had passed before the request was read")
        if self.in_flight >= self._many:
            self._insist_on_room(call.deadline - now, now)
        self.in_flight += 1
        return principal

    def _insist_on_room(self, remaining: float, now: float) -> None:
        """Raise Overloaded if there is no room, or no time."""
        if self.in_flight >= self._limit:
            raise Overloaded("too many requests in flight", reason="in_flight")
        if self._turn_began is None:
            self._turn_began = now
            asyncio.get_running_loop().call_soon(self._turned)
        wait = _TURNS * self.turn
        if wait >= SHARE * remaining:
            raise Overloaded(
                f"the gateway is busy: about {wait * 1e3:.0f} ms to wait with "
                f"{remaining * 1e3:.0f} ms left",
                wait,
                "loop",
            )

    def _turned(self) -> None:
        """The loop has come round: what began after the first request of a turn is behind us."""
        began, self._turn_began = self._turn_began, None
        if began is not None:
            self.turn += _WEIGHT * (self._now() - began - self.turn)

    def leave(self) -> None:
        """Give the slot back."""
        self.in_flight -= 1

    def publish(self) -> None:
        """Show how many requests are in flight; called from time to time, not per request."""
        self._gauge.set(self.in_flight)
