"""A lane: one version of one model with everything a request needs, resolved beforehand."""

from collections.abc import Callable

from serving.config.schema import ModelConfig
from serving.config.snapshot import StagedVersion
from serving.metrics import Counter, Histogram, MetricsFile
from serving.recording.row_plan import RowPlan
from serving.types import ModelMetadata, TensorMetadata, VersionConfig
from serving.upstream import Direct, Upstream
from serving.worker.join import JoinPlan
from serving.worker.tally import Ledger, Phases, Tally

__all__ = ["Lane"]


class Lane:
    """One version, ready to answer.

    `upstream` is shared between successive tables as long as the artifact and its serving
    options stay the same; everything else is rebuilt with each table.
    """

    __slots__ = (
        "_ledger",
        "_metrics",
        "_outcomes",
        "_phases",
        "_tallies",
        "_wall",
        "config",
        "datatypes",
        "direct",
        "join",
        "joining",
        "labels",
        "model",
        "rows",
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
        rows: RowPlan,
        metrics: MetricsFile,
        ledger: Ledger,
        wall: Callable[[], float],
    ) -> None:
        self.config = config
        self.model = config.model
        self.version = version
        self.staged = staged
        self.upstream = upstream
        self.direct = upstream if isinstance(upstream, Direct) else None
        """The upstream, if it can tell an answer."""
        self.join = join
        self.rows = rows
        """What its rows in the prediction log look like."""
        self.joining = 0
        """Requests that wait for features, and will then want `upstream`."""
        self.labels = config.versions[version].labels
        self.datatypes = {spec.name: spec.datatype for spec in staged.signature.outputs}
        self._phases = Phases(metrics, config.model, version)
        self._metrics = metrics
        self._ledger = ledger
        self._wall = wall
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._outcomes: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    @property
    def waits(self) -> bool:
        """Whether a request may have to wait for more than its inference."""
        return self.direct is None or self.join.reads

    def tally(self, role: str, protocol: str) -> Tally:
        """Find where answers in this role over this protocol are counted."""
        tally = self._tallies.get((role, protocol))
        if tally is None:
            tally = self._tallies[role, protocol] = Tally(
                metrics=self._metrics,
                ledger=self._ledger,
                phases=self._phases,
                labels={"model": self.model, "version": self.version, "role": role},
                protocol=protocol,
                wall=self._wall,
            )
        return tally

    def failed(self, role: str, protocol: str, code: str, seconds: float) -> None:
        """Count one request that this version got and did not answer."""
        found = self._outcomes.get((role, protocol, code))
        if found is None:
            labels = {"model": self.model, "version": self.version, "role": role}
            found = self._outcomes[role, protocol, code] = (
                self._metrics.counter(
                    "sluice_requests_total", **labels, protocol=protocol, code=code
                ),
                self._metrics.histogram("sluice_request_duration_seconds", **labels),
            )
        requests, durations = found
        requests.inc()
        durations.observe(seconds)
        self._phases.failed(seconds)

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
