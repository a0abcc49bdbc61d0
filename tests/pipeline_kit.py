"""A pipeline over upstreams that do what a test tells them; no sockets, no files but counters."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.clock import ManualClock
from serving.config.identity import IdentityTable, OpenTable
from serving.config.schema import Limits, ModelConfig
from serving.config.snapshot import Snapshot, StagedVersion
from serving.config.snapshot_codec import dec_hook
from serving.errors import ModelNotReady
from serving.metrics import MetricsFile, Samples, read
from serving.recording.no_log import PredictionSink
from serving.recording.recorder import Recorder
from serving.types import Call, InferRequest, Signature, Tensor, TensorMetadata
from serving.upstream import Inference
from serving.worker.admission import Admission
from serving.worker.mirror import Mirror
from serving.worker.pipeline import Pipeline
from serving.worker.table import Loader
from serving.worker.tally import Ledger
from serving.worker.tracing import NoTracing, Tracing

SIGNATURE = Signature(
    inputs=[TensorMetadata("X", "FP32", (-1, 2))],
    outputs=[TensorMetadata("sum", "FP32", (-1,))],
    batchable=True,
)
Compute = Callable[[NDArray[Any]], NDArray[Any]]


class ScriptedUpstream:
    """Answers at once with `compute`, or when `release` is set, or with `failure`."""

    signature = SIGNATURE

    def __init__(self, compute: Compute) -> None:
        self.compute = compute
        self.release: asyncio.Event | None = None
        self.failure: BaseException | None = None
        self.is_ready = True
        self.calls: list[dict[str, Any]] = []
        self.closed = False

    def ready(self) -> bool:
        """What the test says."""
        return self.is_ready

    def there(self) -> bool:
        """The same."""
        return self.ready()

    def infer(self, feed: dict[str, NDArray[Any]], **options: Any) -> "asyncio.Future[Inference]":
        """Note the options and answer as told."""
        if not self.is_ready:
            raise ModelNotReady("version 'v1' is not ready")
        self.calls.append(options)
        return asyncio.ensure_future(self._run(feed, self.release))

    async def _run(self, feed: dict[str, NDArray[Any]], release: asyncio.Event | None) -> Inference:
        if release is not None:
            await release.wait()
        if self.failure is not None:
            raise self.failure
        rows = len(feed["X"])
        return Inference([self.compute(feed["X"])], 0.001, 0.002, rows)

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


class Kit:
    """A pipeline serving model `m` with versions v1 (sums), v2 (sums + 1) and v3 (sums)."""

    def __init__(
        self,
        folder: Path,
        *,
        identity: IdentityTable | None = None,
        tracing: Tracing | None = None,
        serve: dict[str, Any] | None = None,
        log: PredictionSink | None = None,
        **traffic: Any,
    ) -> None:
        self.clock = ManualClock()
        self.metrics = MetricsFile(folder / "worker.metrics")
        self.upstreams: dict[str, ScriptedUpstream] = {}
        admission = Admission(identity or OpenTable(), Limits(), self.metrics)
        self.mirror = Mirror(admission, self.metrics, self.clock)
        self.pipeline = Pipeline(
            admission=admission,
            recorder=Recorder(self.metrics, capacity=8),
            mirror=self.mirror,
            tracing=tracing or NoTracing(),
            limits=Limits(),
            metrics=self.metrics,
            clock=self.clock,
            worker="0",
            log=log,
        )
        self.ledger = Ledger()
        self.loader = Loader(self._load, self.metrics, self.ledger, self.clock)
        self._serve = serve or {}
        self._traffic = traffic

    async def _load(self, config: ModelConfig, version: str, staged: StagedVersion) -> Any:
        del config, staged
        extra = 1.0 if version == "v2" else 0.0
        upstream = ScriptedUpstream(lambda x: (x.sum(axis=1) + extra).astype(np.float32))
        self.upstreams[version] = upstream
        return upstream

    def snapshot(self, revision: int = 1, *, unloaded: bool = False, **traffic: Any) -> Snapshot:
        """One model under one plan."""
        versions = {name: {"path": name, "sha256": name[1] * 64} for name in ("v1", "v2", "v3")}
        config = msgspec.convert(
            {
                "model": "m",
                "versions": versions,
                "entity": {"key": "INT64"},
                "serve": self._serve,
                "traffic": {"production": "v1", **(traffic or self._traffic)},
            },
            ModelConfig,
            dec_hook=dec_hook,
        )
        staged = {
            name: StagedVersion(path=name, sha256=name[1] * 64, signature=SIGNATURE)
            for name in versions
        }
        return Snapshot(
            revision=revision,
            published_at=0.0,
            author="test",
            models={"m": config},
            views={},
            staged={"m": staged},
            unloaded=["m"] if unloaded else [],
        )

    async def serve(self, revision: int = 1, **plan: Any) -> "Kit":
        """Replace the table, as a worker does."""
        old = self.pipeline.table
        new = await self.loader.build(self.snapshot(revision, **plan), old)
        self.pipeline.table = new
        await self.loader.retire(old, new)
        return self

    def call(self, **fields: Any) -> Call:
        """A call that arrives now."""
        return Call(protocol="internal", arrived=self.clock.monotonic(), **fields)

    async def infer(
        self, *, key: int | None = None, call: Call | None = None, **fields: Any
    ) -> Any:
        """Ask for the sum of one row."""
        inputs = fields.pop("inputs", None) or [row(1, 2)]
        if key is not None:
            inputs = [*inputs, Tensor("key", "INT64", np.array([key]))]
        fields.setdefault("model", "m")
        fields.setdefault("version", "")
        request = InferRequest(inputs=inputs, **fields)
        return await self.pipeline.infer(request, call or self.call())

    async def until_counted(self, family: str, *labels: str) -> None:
        """Wait until something has been counted."""
        async with asyncio.timeout(10):
            while (family, labels) not in self.counted:
                await asyncio.sleep(0.001)

    @property
    def counted(self) -> Samples:
        """Everything counted so far."""
        self.ledger.settle()
        self.pipeline.recorder.publish()
        self.pipeline.admission.publish()
        return read(self.metrics.path)


def row(*values: float) -> Tensor:
    """One row of the input X."""
    return Tensor("X", "FP32", np.array([values], np.float32))


def keys(count: int, seed: int = 1) -> list[int]:
    """Distinct keys in a seeded order."""
    return random.Random(seed).sample(range(10 * count), count)
