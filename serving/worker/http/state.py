"""What all connections of one HTTP listener share."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from serving.clock import Clock
from serving.config.schema import Limits
from serving.metrics import Counter, MetricsFile
from serving.protocol.tensors import TensorLimits
from serving.worker.http.framing import WantedHeaders
from serving.worker.http.responses import ResponseHeads
from serving.worker.http.routes import Router
from serving.worker.plane import Plane
from serving.worker.spread import Spread

if TYPE_CHECKING:
    from serving.worker.http.connection import Connection

__all__ = ["ListenerState"]

_UNKNOWN: Final = "_unknown"
_LINGER_SECONDS: Final = 2.0
_SLOWEST_SWEEP_SECONDS: Final = 0.25
_REASONS: Final = {
    400: "invalid_request",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_encoding",
    417: "expectation",
    431: "headers_too_large",
    501: "not_offered",
    503: "unavailable",
    505: "http_version",
}


class ListenerState:
    """Shared by all connections: collaborators, limits, and points in time.

    No request sets a timer. `sweep`, called every `interval` seconds, moves the `…_until`
    times on; a connection copies the one it needs and is told when it has passed, at most two
    intervals late and never early.
    """

    __slots__ = (
        "_clock",
        "_header_names",
        "_metrics",
        "_names",
        "_refusals",
        "_timeouts",
        "_wanted",
        "arriving",
        "authorize",
        "begin",
        "body_until",
        "connections",
        "disconnected",
        "draining",
        "emptied",
        "gauge",
        "header_until",
        "heads",
        "idle_until",
        "interval",
        "linger_until",
        "loop",
        "max_body",
        "max_connections",
        "max_header",
        "max_inflate_ratio",
        "now",
        "plane",
        "router",
        "soon",
        "spread",
        "tensor_limits",
    )

    def __init__(
        self,
        plane: Plane,
        limits: Limits,
        tensor_limits: TensorLimits,
        metrics: MetricsFile,
        *,
        header_names: Callable[[], frozenset[str]],
        clock: Clock,
        spread: Spread,
    ) -> None:
        self.plane = plane
        self.begin = plane.begin
        self.authorize = plane.authorize
        self.tensor_limits = tensor_limits
        self.max_body = int(limits.max_body)
        self.max_header = int(limits.max_header)
        self.max_inflate_ratio = limits.max_inflate_ratio
        self.max_connections = limits.max_connections
        self.router = Router()
        self.heads = ResponseHeads(clock.wall())
        self.now = clock.monotonic
        self.spread = spread
        self.connections: set[Connection] = set()
        self.arriving: set[Connection] = set()
        """Those that are ours and not open yet: they are in their TLS handshake."""
        self.disconnected = 0
        """Requests given up because their client left."""
        self.draining = False
        self.emptied = asyncio.Event()
        self.gauge = metrics.gauge("sluice_connections", protocol="http")
        self.loop: asyncio.AbstractEventLoop
        self._clock = clock
        self._metrics = metrics
        self._refusals: dict[str, Counter] = {}
        self._header_names = header_names
        self._names: frozenset[str] = frozenset()
        self._wanted = WantedHeaders.of(self._names)
        self._timeouts = (
            float(limits.header_timeout),
            float(limits.body_timeout),
            float(limits.idle_timeout),
        )
        self.interval = min(_SLOWEST_SWEEP_SECONDS, min(self._timeouts) / 4)
        self.sweep()

    def sweep(self) -> None:
        """Move time on and tell the connections that have used theirs up."""
        now = self.now()
        self.heads.refresh(self._clock.wall())
        header, body, idle = self._timeouts
        self.soon = now + self.interval
        self.header_until = self.soon + header
        self.body_until = self.soon + body
        self.idle_until = self.soon + idle
        self.linger_until = self.soon + _LINGER_SECONDS
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.expire()

    def wanted(self) -> WantedHeaders:
        """Header names worth keeping now; the same object while they do not change."""
        names = self._header_names()
        if names is not self._names:
            self._names = names
            if names != self._wanted.names:
                self._wanted = WantedHeaders.of(names)
        return self._wanted

    def count_refusal(self, status: int) -> None:
        """Count a request that never reached the plane."""
        reason = _REASONS.get(status, "internal")
        counter = self._refusals.get(reason)
        if counter is None:
            counter = self._refusals[reason] = self._metrics.counter(
                "sluice_rejected_total", model=_UNKNOWN, reason=reason
            )
        counter.inc()

    def arrived(self, connection: "Connection") -> None:
        """Note a connection that will be opened, or found to be `not_coming`."""
        self.arriving.add(connection)
        self._count()

    def not_coming(self, connection: "Connection") -> None:
        """Note that a connection came to nothing; one that was opened is left as it is."""
        self.arriving.discard(connection)
        self._count()

    def opened(self, connection: "Connection") -> None:
        """Note a new connection."""
        self.arriving.discard(connection)
        self.connections.add(connection)
        self.gauge.inc()
        self._count()

    def closed(self, connection: "Connection") -> None:
        """Note that a connection is gone."""
        self.connections.discard(connection)
        self.gauge.dec()
        self._count()

    def _count(self) -> None:
        count = len(self.connections) + len(self.arriving)
        self.spread.count(count)
        if not count:
            self.emptied.set()
