"""The gRPC listener: one port, the inference and health services, a drain that finishes.

Which server carries the services is decided at start (`grpc/server.py` says what differs):
TLS needs grpc.aio; plaintext on loopback takes the native front where it is installed.
A process may hold one listener only: a second grpc.aio loop in a process wakes both for every
event (grpc/grpc#25364).
"""

from collections.abc import Callable

import grpc

from serving.clock import Clock
from serving.config.schema import Limits
from serving.metrics import MetricsFile
from serving.protocol.tensors import TensorLimits
from serving.worker.grpc.call import CallReader, Edge, InFlight
from serving.worker.grpc.exchange import Exchanges
from serving.worker.grpc.health import HEALTH_SERVICE, Health
from serving.worker.grpc.inference import INFERENCE_SERVICE, Inference
from serving.worker.grpc.native import NativeServer, native_module
from serving.worker.grpc.server import AioServer, Server, prefers_native
from serving.worker.plane import Plane

__all__ = ["GrpcListener"]


class GrpcListener:
    """Serves the plane over gRPC.

    Args:
        plane: what answers.
        limits: message size, metadata size and idle time are taken from it.
        tensor_limits: bounds on what one request may declare.
        metrics: where refusals that never reach the plane are counted.
        header_names: gives the metadata keys that routing wants right now, in lower case.
        clock: the time calls arrive.
        native: None takes `pygrpc_native` for plaintext on loopback if it is installed; True
            takes it for any plaintext address, and refuses to start without it; False never.
    """

    def __init__(
        self,
        plane: Plane,
        limits: Limits,
        tensor_limits: TensorLimits,
        metrics: MetricsFile,
        *,
        header_names: Callable[[], frozenset[str]],
        clock: Clock,
        native: bool | None = None,
    ) -> None:
        self.kind = ""
        """What serves, once started: `pygrpc_native` or `grpc.aio`."""
        self._limits = limits
        self._native = native
        self._edge = Edge()
        self._in_flight = InFlight()
        self._inference = Inference(
            plane,
            self._edge,
            CallReader(header_names, clock),
            tensor_limits,
            metrics=metrics,
            in_flight=self._in_flight,
        )
        self._health = Health(plane, self._edge)
        self._server: Server | None = None

    async def start(
        self, host: str, port: int, credentials: grpc.ServerCredentials | None = None
    ) -> int:
        """Listen with SO_REUSEPORT and serve; give the port taken (`port` 0 takes a free one).

        Raises:
            EngineError: the address cannot be had, or `native` was demanded and is missing.
        """
        self._server = server = self._choose(host, credentials)
        self.kind = server.kind
        return await server.start(host, port, credentials)

    def begin_drain(self) -> None:
        """Take no new connections; say NOT_SERVING; end streams after their last answer."""
        self._health.begin_drain()
        self._inference.streams.begin_drain()
        if self._server is not None:
            self._server.stop_accepting()

    async def drain(self, seconds: float) -> int:
        """Finish what is in flight, at most `seconds`, and close every connection.

        Returns:
            How many requests were cut off unanswered.
        """
        self.begin_drain()
        if self._server is None:
            return 0
        return await self._server.stop(seconds)

    def _choose(self, host: str, credentials: grpc.ServerCredentials | None) -> Server:
        services = {
            INFERENCE_SERVICE: self._inference.methods(),
            HEALTH_SERVICE: self._health.methods(),
        }
        native = self._native
        if native is None:
            native = prefers_native(host) and native_module() is not None
        if native and credentials is None:
            self._edge.pushback = False
            exchanges = Exchanges(self._inference.begin, self._edge, self._in_flight)
            return NativeServer(services, self._limits, self._in_flight, exchanges)
        return AioServer(services, self._limits, self._in_flight)
