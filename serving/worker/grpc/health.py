"""grpc.health.v1.Health, the question load balancers and orchestrators ask.

The empty service and `inference.GRPCInferenceService` answer whether this worker wants
requests. Protocol: https://github.com/grpc/grpc/blob/master/doc/health-checking.md .
"""

import asyncio
from typing import Final

import grpc
from grpc_health.v1 import health_pb2 as pb

from serving.errors import NotFound, Overloaded
from serving.worker.grpc.call import Context, Edge, parse
from serving.worker.plane import Plane

__all__ = ["HEALTH_SERVICE", "Health"]

HEALTH_SERVICE: Final = "grpc.health.v1.Health"
SERVICES: Final = ("", "inference.GRPCInferenceService")
WATCH_SECONDS: Final = 1.0
"""How late a watcher may hear of a change; readiness is looked up, nobody announces it."""

MAX_WATCHERS: Final = 64
"""Watches served at once; each costs a stream and a timer, one more is refused."""

_Status = pb.HealthCheckResponse


class Health:
    """Answers Check and Watch from `plane.ready()`; NOT_SERVING once a drain has begun."""

    def __init__(self, plane: Plane, edge: Edge) -> None:
        self._edge = edge
        self._plane = plane
        self._draining = asyncio.Event()
        self._watchers = 0

    def methods(self) -> dict[str, "grpc.RpcMethodHandler[bytes, bytes]"]:
        """The service's methods, bytes in and bytes out."""
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._edge.answering(self.check)),
            "Watch": grpc.unary_stream_rpc_method_handler(self._edge.answering(self.watch)),
        }

    def begin_drain(self) -> None:
        """Say NOT_SERVING from now on, to watchers at once, and end their streams."""
        self._draining.set()

    async def check(self, message: bytes, context: Context) -> bytes:  # noqa: ARG002 - the interface
        """Answer once. Raises NotFound for a service nobody serves."""
        if parse(pb.HealthCheckRequest, message).service not in SERVICES:
            raise NotFound("unknown service; ask for '' or 'inference.GRPCInferenceService'")
        return _encoded(self._status())

    async def watch(self, message: bytes, context: Context) -> None:
        """Answer now and on every change, until the client leaves or the server drains.

        Raises Overloaded past `MAX_WATCHERS`.
        """
        known = parse(pb.HealthCheckRequest, message).service in SERVICES
        if self._watchers >= MAX_WATCHERS:
            raise Overloaded("too many health watches", reason="watches")
        await self._follow(known, context)

    async def _follow(self, known: bool, context: Context) -> None:
        self._watchers += 1
        try:
            said: int | None = None
            while True:
                # Asked first: a drain that begins while a status is written gets a turn of its own.
                draining = self._draining.is_set()
                status = self._status() if known else _Status.SERVICE_UNKNOWN
                if status != said:
                    await context.write(_encoded(status))
                    said = status
                if draining:
                    return
                try:
                    async with asyncio.timeout(WATCH_SECONDS):
                        await self._draining.wait()
                except TimeoutError:
                    continue
        finally:
            self._watchers -= 1

    def _status(self) -> int:
        serving = self._plane.ready() and not self._draining.is_set()
        status: int = _Status.SERVING if serving else _Status.NOT_SERVING
        return status


def _encoded(status: int) -> bytes:
    message: bytes = _Status(status=status).SerializeToString()
    return message
