"""A lane: one version of one model with everything a request needs, resolved beforehand."""

import time

from serving.config.schema import ModelConfig
from serving.config.snapshot import StagedVersion
from serving.metrics import Counter, Histogram, MetricsFile
from serving.types import ModelMetadata, TensorMetadata, VersionConfig
from serving.upstream import Inference, Upstream
from serving.worker.join import JoinPlan

__all__ = ["PHASES", "Lane", "Phases"]

STATIONS = ("decode", "admit", "join", "queue", "infer", "answer")
PHASES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


class Phases:
    """The metric children of one version; observing is the only thing done per request."""

    __slots__ = ("_counts", "_last", "_rows", "_seconds", "_stations")

    def __init__(self, metrics: MetricsFile, model: str, version: str) -> None:
        self._stations: tuple[Histogram, ...] = tuple(
            metrics.histogram(
                "sluice_station_duration_seconds", model=model, version=version, station=station
            )
            for station in STATIONS
        )
        self._seconds: tuple[Counter, ...] = tuple(
            metrics.counter(
                "sluice_inference_seconds_total", model=model, version=version, phase=phase
            )
            for phase in PHASES
        )
        self._counts: tuple[Counter, ...] = tuple(
            metrics.counter(
                "sluice_inference_phase_total", model=model, version=version, phase=phase
            )
            for phase in PHASES
        )
        self._rows = metrics.counter("sluice_inference_rows_total", model=model, version=version)
        self._last = metrics.gauge(
            "sluice_last_inference_timestamp_seconds", model=model, version=version
        )

    def succeeded(
        self,
        marks: tuple[float, float, float, float, float, float],
        inference: Inference,
        rows: int,
    ) -> None:
        """Count one answer.

        `marks` are monotonic seconds: arrived, decoded, admitted (and routed), joined,
        inferred, answered.
        """
        arrived, decoded, admitted, joined, inferred, answered = marks
        queue, compute = inference.queue_seconds, inference.compute_seconds
        stations = self._stations
        stations[0].observe(decoded - arrived)
        stations[1].observe(admitted - decoded)
        stations[2].observe(joined - admitted)
        stations[3].observe(queue)
        stations[4].observe(compute)
        stations[5].observe(answered - inferred)
        seconds, counts = self._seconds, self._counts
        seconds[0].inc(answered - arrived)
        counts[0].inc()
        seconds[2].inc(queue)
        counts[2].inc()
        seconds[3].inc(joined - admitted)
        counts[3].inc()
        seconds[4].inc(compute)
        counts[4].inc()
        seconds[5].inc(answered - inferred)
        counts[5].inc()
        self._rows.inc(rows)
        self._last.set(time.time())

    def failed(self, seconds: float) -> None:
        """Count one request that this version did not answer."""
        self._seconds[1].inc(seconds)
        self._counts[1].inc()


class Lane:
    """One version, ready to answer.

    `upstream` is shared between successive tables as long as the artifact and its serving
    options stay the same; everything else is rebuilt with each table.
    """

    __slots__ = (
        "_metrics",
        "_outcomes",
        "config",
        "datatypes",
        "deadline",
        "join",
        "labels",
        "model",
        "phases",
        "staged",
        "upstream",
        "version",
    )

    def __init__(
        self,
        *,
        config: ModelConfig,
        version: str,
        staged: StagedVersion,
        upstream: Upstream,
        join: JoinPlan,
        metrics: MetricsFile,
    ) -> None:
        self.config = config
        self.model = config.model
        self.version = version
        self.staged = staged
        self.upstream = upstream
        self.join = join
        self.labels = config.versions[version].labels
        self.datatypes = {spec.name: spec.datatype for spec in staged.signature.outputs}
        self.phases = Phases(metrics, config.model, version)
        self._metrics = metrics
        self._outcomes: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def outcome(self, role: str, protocol: str, code: str) -> tuple[Counter, Histogram]:
        """Find the request counter and duration histogram of one outcome."""
        found = self._outcomes.get((role, protocol, code))
        if found is None:
            labels = {"model": self.model, "version": self.version, "role": role}
            found = self._outcomes[role, protocol, code] = (
                self._metrics.counter(
                    "sluice_requests_total", **labels, protocol=protocol, code=code
                ),
                self._metrics.histogram("sluice_request_duration_seconds", **labels),
            )
        return found

    def metadata(self, versions: list[str]) -> ModelMetadata:
        """Describe what a client may send and gets."""
        return ModelMetadata(
            name=self.model,
            versions=versions,
            platform="onnxruntime_onnx",
            inputs=self.join.client_inputs(),
            outputs=self._outputs(),
        )

    def version_config(self) -> VersionConfig:
        """Describe batching and optional inputs."""
        signature = self.staged.signature
        return VersionConfig(
            name=self.model,
            platform="onnxruntime_onnx",
            backend="onnxruntime",
            max_batch_size=self.config.serve.max_batch_size if signature.batchable else 0,
            inputs=self.join.client_inputs(),
            outputs=self._outputs(),
        )

    def _outputs(self) -> list[TensorMetadata]:
        return self.staged.signature.outputs
