"""The gateway as listeners see it: `Plane`, answered from the live table and the counters."""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Final

from serving.errors import ModelNotFound, ServingError
from serving.metrics import Samples
from serving.metrics_folder import totals
from serving.types import (
    Duration,
    ModelMetadata,
    ModelStatistics,
    RepositoryEntry,
    ServerMetadata,
    VersionConfig,
)
from serving.worker.lane import Lane
from serving.worker.pipeline import Pipeline
from serving.worker.table import LiveModel
from serving.worker.tally import PHASES, Ledger

__all__ = ["EXTENSIONS", "Gateway"]

EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
"""Only what works; `model_repository` here is the index, load and unload are admin verbs."""


class Gateway:
    """Implements `serving.worker.plane.Plane`."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        ledger: Ledger,
        server_name: str,
        metrics_folder: Path,
        trace_rate: float,
    ) -> None:
        self.pipeline = pipeline
        self._ledger = ledger
        self.draining = False
        self._server_name = server_name
        self._metrics_folder = metrics_folder
        self._trace_rate = trace_rate
        # Bound once, not wrapped: these are called for every request.
        self.infer = pipeline.infer
        self.begin = pipeline.begin
        self.authorize = pipeline.admission.authorize

    def live(self) -> bool:
        """A process that can answer is alive."""
        return True

    def ready(self) -> bool:
        """True once a snapshot is served, until draining begins."""
        return self.pipeline.table.revision > 0 and not self.draining

    def header_names(self) -> frozenset[str]:
        """Headers that the traffic plans read, in lower case."""
        return self.pipeline.table.header_names

    def server_metadata(self) -> ServerMetadata:
        """Name, version and what is offered."""
        return ServerMetadata(self._server_name, _own_version(), list(EXTENSIONS))

    def model_names(self) -> list[str]:
        """Every model in the configuration."""
        return sorted(self.pipeline.table.models)

    def model_ready(self, model: str, version: str = "") -> bool:
        """Whether the version (production if empty) answers now. Raises ModelNotFound."""
        live = self.pipeline.table.model(model)
        try:
            live.lane(version or live.route.production)
        except ModelNotFound:
            raise
        except ServingError:
            return False
        return True

    def model_metadata(self, model: str, version: str = "") -> ModelMetadata:
        """Describe a version. Raises ModelNotFound, ModelNotReady."""
        live, lane = self._lane(model, version)
        return lane.metadata([version] if version else sorted(live.config.versions))

    def model_config(self, model: str, version: str = "") -> VersionConfig:
        """Describe a version's batching. Raises ModelNotFound, ModelNotReady."""
        return self._lane(model, version)[1].version_config()

    def _lane(self, model: str, version: str) -> tuple[LiveModel, Lane]:
        live = self.pipeline.table.model(model)
        return live, live.lane(version or live.route.production)

    def model_statistics(self, model: str = "", version: str = "") -> list[ModelStatistics]:
        """Add up every worker's counters, those of dead ones included.

        A version only counts beside a model. Raises ModelNotFound.
        """
        table = self.pipeline.table
        if model:
            models = [table.model(model)]
            if version and version not in models[0].config.versions:
                models[0].lane(version)  # raises ModelNotFound in its usual words
        else:
            models, version = list(table.models.values()), ""
        self._ledger.settle()
        samples = totals(self._metrics_folder)
        return [
            _statistics(samples, live.name, name)
            for live in models
            for name in ([version] if version else sorted(live.config.versions))
        ]

    def repository_index(self, *, ready_only: bool = False) -> list[RepositoryEntry]:
        """Every version in the configuration and its state."""
        entries = []
        for name, live in sorted(self.pipeline.table.models.items()):
            for version in sorted(live.config.versions):
                try:
                    live.lane(version)
                    entry = RepositoryEntry(name, version, "READY")
                except ServingError as error:
                    reason = "unloaded" if not live.loaded else error.message
                    entry = RepositoryEntry(name, version, "UNAVAILABLE", reason)
                if entry.state == "READY" or not ready_only:
                    entries.append(entry)
        return entries

    def trace_settings(self, model: str = "") -> dict[str, str | list[str]]:
        """Triton's words for our tracing: `trace_rate` is one in N."""
        if model:
            self.pipeline.table.model(model)
        on = self._trace_rate > 0
        return {
            "trace_level": ["TIMESTAMPS"] if on else ["OFF"],
            "trace_rate": str(max(1, round(1 / self._trace_rate))) if on else "0",
            "trace_count": "-1",
            "log_frequency": "0",
            "trace_file": "",
            "trace_mode": "opentelemetry",
        }

    def log_settings(self) -> dict[str, str | bool | int]:
        """Triton's words for our logs."""
        return {
            "log_file": "",
            "log_info": True,
            "log_warning": True,
            "log_error": True,
            "log_verbose_level": 0,
            "log_format": "default",
        }


def _own_version() -> str:
    try:
        return distribution_version("sluice-gateway")
    except PackageNotFoundError:
        return "0"


def _statistics(samples: Samples, model: str, version: str) -> ModelStatistics:
    labels = (model, version)

    def value(name: str, *more: str) -> float:
        return samples.get((name, (*labels, *more)), [0.0])[0]

    def phase(name: str) -> Duration:
        return _duration(
            value("sluice_inference_phase_total", name),
            value("sluice_inference_seconds_total", name),
        )

    batches = {
        int(key[1][2]): _duration(slots[0], value("sluice_batch_seconds_total", key[1][2]))
        for key, slots in samples.items()
        if key[0] == "sluice_batches_total" and key[1][:2] == labels and slots[0]
    }
    success, fail, queue, compute_input, compute_infer, compute_output = map(phase, PHASES)
    return ModelStatistics(
        name=model,
        version=version,
        last_inference=round(value("sluice_last_inference_timestamp_seconds") * 1e3),
        inference_count=int(value("sluice_inference_rows_total")),
        execution_count=sum(batch.count for batch in batches.values()),
        success=success,
        fail=fail,
        queue=queue,
        compute_input=compute_input,
        compute_infer=compute_infer,
        compute_output=compute_output,
        batches=batches,
    )


def _duration(count: float, seconds: float) -> Duration:
    return Duration(count=int(count), ns=round(seconds * 1e9))
