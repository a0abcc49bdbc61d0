"""A collector of traces that counts spans and keeps none, so that they are exported for real."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

__all__ = ["Collector", "collector"]


class Collector(otlp_grpc.TraceServiceServicer):
    """OTLP over gRPC on a free port of loopback."""

    def __init__(self) -> None:
        self.count = 0
        self.address = ""

    def Export(  # noqa: N802 - the service's own name
        self, request: otlp.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> otlp.ExportTraceServiceResponse:
        """Count a batch."""
        del context
        for resource in request.resource_spans:
            self.count += sum(len(scope.spans) for scope in resource.scope_spans)
        return otlp.ExportTraceServiceResponse()


@contextmanager
def collector() -> Iterator[Collector]:
    """Collect until the end."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    keeper = Collector()
    otlp_grpc.add_TraceServiceServicer_to_server(keeper, server)
    keeper.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield keeper
    finally:
        server.stop(None).wait()
