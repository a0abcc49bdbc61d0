"""Trace context through a real gateway to a real OTLP collector."""

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import gateway_kit
import grpc
import httpx
import numpy as np
import onnx_models
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"
BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [21]}]}
STATIONS = {"decode", "admit", "join", "queue", "infer", "answer"}


class Collector(otlp_grpc.TraceServiceServicer):
    """Keeps every span it is sent."""

    def __init__(self) -> None:
        self.spans: list[trace_pb2.Span] = []
        self.arrival = threading.Condition()

    def Export(  # noqa: N802 - the service's own name
        self, request: otlp.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> otlp.ExportTraceServiceResponse:
        """Take a batch."""
        del context
        with self.arrival:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
            self.arrival.notify_all()
        return otlp.ExportTraceServiceResponse()

    def wait(self, count: int) -> list[trace_pb2.Span]:
        """Wait until this many spans are here."""
        with self.arrival:
            give_up = time.monotonic() + 60
            while len(self.spans) < count:
                assert self.arrival.wait(give_up - time.monotonic()), self.spans
            return list(self.spans)


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    """An OTLP/gRPC collector on a free port."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    keeper = Collector()
    otlp_grpc.add_TraceServiceServicer_to_server(keeper, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield keeper, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def gateway(tmp_path: Path, collector: tuple[Collector, str]) -> Iterator[gateway_kit.Running]:
    """A gateway that samples nothing by itself."""
    folder = tmp_path / "gateway"
    gateway_kit.write_gateway(folder, tracing={"otlp": collector[1], "sample": 0.0})
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.doubler()}, {})
    with gateway_kit.running(folder) as running:
        yield running


def test_a_sampled_caller_gets_a_span_with_its_stations(
    gateway: gateway_kit.Running, collector: tuple[Collector, str]
) -> None:
    """Over HTTP and gRPC: our span is the caller's child, the stations are ours."""
    url = f"http://{gateway.http}/v2/models/m/infer"
    unsampled = httpx.post(url, json=BODY, headers={"traceparent": UNSAMPLED})
    sampled = httpx.post(url, json=BODY, headers={"traceparent": SAMPLED})
    assert "traceresponse" not in unsampled.headers

    spans = collector[0].wait(len(STATIONS) + 1)
    (server,) = [span for span in spans if span.kind == trace_pb2.Span.SPAN_KIND_SERVER]
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
    assert sampled.headers["traceresponse"] == f"00-{TRACE}-{server.span_id.hex()}-01"
    children = [span for span in spans if span is not server]
    assert {span.name for span in children} == STATIONS
    assert {span.parent_span_id for span in children} == {server.span_id}
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)

    message = pb.ModelInferRequest(model_name="m")
    message.inputs.add(name="X", datatype="FP32", shape=[1, 1])
    message.raw_input_contents.append(np.array([21], "<f4").tobytes())
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        _, call = stub.ModelInfer.with_call(
            message, metadata=(("traceparent", SAMPLED),), timeout=30
        )
    told = dict(call.trailing_metadata())["traceresponse"]
    assert told.startswith(f"00-{TRACE}-")
    spans = collector[0].wait(2 * (len(STATIONS) + 1))
    assert told.split("-")[2] in {span.span_id.hex() for span in spans}


def test_a_collector_that_is_down_costs_spans_and_no_answer(tmp_path: Path) -> None:
    """Everything is sampled, nobody collects: requests are answered all the same."""
    folder = tmp_path / "gateway"
    gateway_kit.write_gateway(folder, tracing={"otlp": "http://127.0.0.1:9", "sample": 1.0})
    gateway_kit.write_model(folder, "m", {"v1": onnx_models.doubler()}, {})
    with gateway_kit.running(folder) as gateway:
        answers = [gateway.ask(f"{gateway.http}/v2/models/m/infer", BODY) for _ in range(50)]

    assert {status for status, _ in answers} == {200}
