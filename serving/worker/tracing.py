"""W3C trace context in, spans out, nothing at all for a request that is not sampled.

The caller's decision is kept (the flag in `traceparent`); without one, a random share is
sampled. The SDK is asked only for sampled requests: their server span starts with the
request, and the stations become child spans with explicit times after the answer is made.
Format of the header: https://www.w3.org/TR/trace-context/ .
"""

import random
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from serving.config.schema import TracingConfig
from serving.metrics import MetricsFile
from serving.types import Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span

__all__ = ["NoTracing", "OtlpTracing", "Trace", "Tracing", "parse_traceparent"]

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\Z"
)


def parse_traceparent(header: str) -> tuple[int, int, bool] | None:
    """Read (trace id, parent span id, sampled); None for anything malformed."""
    match = _TRACEPARENT.match(header)
    if match is None or (len(header) > 55 and header.startswith("00")):
        return None
    return int(match[1], 16), int(match[2], 16), bool(int(match[3], 16) & 1)


class Trace(Protocol):
    """One sampled request."""

    def finish(
        self,
        marks: Sequence[tuple[str, float, float]],
        attributes: dict[str, str | int | float | bool],
        error: str | None,
    ) -> None:
        """Close the span; `marks` are stations with start and end in monotonic seconds."""
        ...


class Tracing(Protocol):
    """Decides and keeps spans."""

    def begin(self, call: Call) -> Trace | None:
        """Start a trace, or None for a request that is not sampled."""
        ...

    def close(self) -> None:
        """Send what is left, waiting a few seconds at most."""
        ...


class NoTracing:
    """Tracing for gateways that have none."""

    def begin(self, call: Call) -> None:
        """Sample nothing."""

    def close(self) -> None:
        """Send nothing."""


class _OtlpTrace:
    __slots__ = ("_offset", "_span", "_tracer")

    def __init__(self, tracer: Any, span: "Span", offset: int) -> None:
        self._tracer = tracer
        self._span = span
        self._offset = offset

    def finish(
        self,
        marks: Sequence[tuple[str, float, float]],
        attributes: dict[str, str | int | float | bool],
        error: str | None,
    ) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - only where tracing is configured

        context = trace.set_span_in_context(self._span)
        end = time.monotonic()
        for station, start, stop in marks:
            child = self._tracer.start_span(station, context=context, start_time=self._wall(start))
            child.end(end_time=self._wall(stop))
            end = max(end, stop)
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_status(trace.StatusCode.ERROR, error)
        self._span.end(end_time=self._wall(end))

    def _wall(self, monotonic: float) -> int:
        return int(monotonic * 1e9) + self._offset


class OtlpTracing:
    """Spans through `opentelemetry-sdk`, sent in batches from a thread of their own.

    The batch processor's queue is bounded; a collector that is down costs spans, not answers.
    """

    def __init__(
        self,
        config: TracingConfig,
        server_name: str,
        metrics: MetricsFile,
        *,
        exporter: "SpanExporter | None" = None,
        rng: random.Random | None = None,
    ) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )

            exporter = OTLPSpanExporter(
                endpoint=config.otlp, insecure=config.otlp.startswith("http://"), timeout=5
            )
        self._rate = config.sample
        self._random = (rng or random.Random()).random  # noqa: S311 - a lottery, not a secret
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": server_name}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(_counting(exporter, metrics)))
        self._tracer = self._provider.get_tracer("sluice")

    def begin(self, call: Call) -> Trace | None:
        """Keep the caller's decision; decide by lot where there is none."""
        parent = parse_traceparent(call.traceparent) if call.traceparent else None
        if not (parent[2] if parent is not None else self._random() < self._rate):
            return None
        return self._start(call, parent)

    def _start(self, call: Call, parent: tuple[int, int, bool] | None) -> Trace:
        from opentelemetry import trace  # noqa: PLC0415

        context = None
        if parent is not None:
            state = trace.TraceState.from_header([call.tracestate]) if call.tracestate else None
            context = trace.set_span_in_context(
                trace.NonRecordingSpan(
                    trace.SpanContext(
                        trace_id=parent[0],
                        span_id=parent[1],
                        is_remote=True,
                        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
                        trace_state=state,
                    )
                )
            )
        offset = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            "infer",
            context=context,
            kind=trace.SpanKind.SERVER,
            start_time=int(call.arrived * 1e9) + offset,
        )
        ids = span.get_span_context()
        call.traceresponse = f"00-{ids.trace_id:032x}-{ids.span_id:016x}-01"
        return _OtlpTrace(self._tracer, span, offset)

    def close(self) -> None:
        """Send what is left."""
        self._provider.force_flush(timeout_millis=3000)
        self._provider.shutdown()


def _counting(exporter: "SpanExporter", metrics: MetricsFile) -> "SpanExporter":
    """Wrap an exporter so that sent and lost spans are counted."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # noqa: PLC0415

    class Counting(SpanExporter):
        def __init__(self) -> None:
            self._exported = metrics.counter("sluice_spans_total", outcome="exported")
            self._dropped = metrics.counter("sluice_spans_total", outcome="dropped")

        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            result = exporter.export(spans)
            sent = result is SpanExportResult.SUCCESS
            (self._exported if sent else self._dropped).inc(len(spans))
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Counting()
