"""Admit: who is calling, by when the answer is due, and whether there is room at all.

The finer question, whether a version's queue can meet the deadline, is answered where the
queue is: `serving.models.batcher` refuses before it queues.
"""

from serving.config.identity import IdentityTable, require
from serving.config.schema import Limits
from serving.errors import DeadlineExceeded, InvalidRequest, Overloaded
from serving.metrics import MetricsFile
from serving.types import Call, InferRequest, Principal, Role

__all__ = ["Admission", "deadline_of"]


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
    """The gate in front of the pipeline. Holds at most `limits.max_in_flight` requests."""

    def __init__(self, identity: IdentityTable, limits: Limits, metrics: MetricsFile) -> None:
        self.identity = identity
        self.in_flight = 0
        self._limit = limits.max_in_flight
        self._longest = float(limits.max_deadline)
        self._gauge = metrics.gauge("sluice_in_flight_requests")

    def authorize(self, authorization: str | None, role: Role) -> Principal:
        """Check a credential and its role. Raises Unauthenticated, PermissionDenied."""
        principal = self.identity.identify(authorization)
        if role not in principal.roles:
            require(principal, role)
        return principal

    def enter(self, request: InferRequest, call: Call, configured: float, now: float) -> Principal:
        """Let a request in and set its deadline; `leave` must follow.

        Raises:
            Unauthenticated, PermissionDenied: by credential.
            DeadlineExceeded: the time given has already passed.
            Overloaded: too many requests in flight.
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
        if self.in_flight >= self._limit:
            raise Overloaded("too many requests in flight", reason="in_flight")
        self.in_flight += 1
        return principal

    def leave(self) -> None:
        """Give the slot back."""
        self.in_flight -= 1

    def publish(self) -> None:
        """Show how many requests are in flight; called from time to time, not per request."""
        self._gauge.set(self.in_flight)
