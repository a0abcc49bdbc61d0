import random
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from serving.config.schema import TracingConfig
from serving.metrics import MetricsFile, read
from serving.types import Call
from serving.worker.tracing import NoTracing, OtlpTracing, parse_traceparent

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-2] + "00"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [(SAMPLED, True), (UNSAMPLED, False), ("cc" + SAMPLED[2:] + "-later", True)],
)
def test_a_valid_traceparent_is_read(header: str, sampled: bool) -> None:
    """Version 00 exactly; of later versions, the part that is known."""
    assert parse_traceparent(header) == (
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
        sampled,
    )


@pytest.mark.parametrize(
    "header",
    [
        "",
        "hello",
        SAMPLED + "-more",
        SAMPLED.upper(),
        "ff" + SAMPLED[2:],
        "00-" + "0" * 32 + SAMPLED[35:],
        SAMPLED[:36] + "0" * 16 + "-01",
        SAMPLED + "\n",
    ],
)
def test_a_malformed_traceparent_is_ignored(header: str) -> None:
    """The specification says to start anew rather than to fail the request."""
    assert parse_traceparent(header) is None


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keep spans in memory: the SDK's own twin of an OTLP exporter."""
    return InMemorySpanExporter()


def tracing(folder: Path, exporter: InMemorySpanExporter, sample: float) -> OtlpTracing:
    """Trace a share of the requests, by a seeded lottery."""
    return OtlpTracing(
        TracingConfig(otlp="http://127.0.0.1:1", sample=sample),
        "sluice",
        MetricsFile(folder / "m.metrics"),
        exporter=exporter,
        rng=random.Random(1),
    )


def call(traceparent: str | None = None) -> Call:
    """Arrive at monotonic second 100."""
    return Call(protocol="http", arrived=100.0, traceparent=traceparent)


def test_a_sampled_request_becomes_one_span_with_its_stations(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    """The caller's span is the parent; stations are children with their own times."""
    spans = tracing(tmp_path, exporter, 0.0)
    request = call(SAMPLED)
    trace = spans.begin(request)
    assert trace is not None
    trace.finish([("join", 100.0, 100.5), ("infer", 100.5, 101.0)], {"sluice.model": "m"}, None)
    spans.close()

    join, infer, server = exporter.get_finished_spans()
    assert (join.name, infer.name, server.name) == ("join", "infer", "infer")
    assert server.kind is SpanKind.SERVER
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == SAMPLED[36:52]
    assert join.parent is not None
    assert join.parent.span_id == server.context.span_id
    assert join.end_time - join.start_time == pytest.approx(5e8, abs=1e3)
    assert server.attributes == {"sluice.model": "m"}
    assert request.traceresponse == (f"00-{SAMPLED[3:35]}-{server.context.span_id:016x}-01")
    assert read(tmp_path / "m.metrics")["sluice_spans_total", ("exported",)] == [3.0]


def test_the_callers_decision_not_to_sample_is_kept(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    """Even at a rate of 1, an unsampled parent stays unsampled."""
    spans = tracing(tmp_path, exporter, 1.0)
    request = call(UNSAMPLED)

    assert spans.begin(request) is None
    assert request.traceresponse is None
    spans.close()


def test_without_a_caller_a_share_is_sampled(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    """At 30 percent, 2,000 requests fall within five standard deviations of 600."""
    spans = tracing(tmp_path, exporter, 0.3)

    traces = [spans.begin(call()) for _ in range(2000)]

    assert abs(sum(trace is not None for trace in traces) - 600) < 5 * (2000 * 0.21) ** 0.5
    spans.close()


def test_an_error_marks_the_span(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    """A failed request is a failed span, with the code as its words."""
    spans = tracing(tmp_path, exporter, 1.0)
    trace = spans.begin(call())
    assert trace is not None
    trace.finish((), {}, "DEADLINE_EXCEEDED")
    spans.close()

    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR


def test_switched_off_samples_nothing() -> None:
    """No tracing is an object that says no, not an if."""
    assert NoTracing().begin(call(SAMPLED)) is None
