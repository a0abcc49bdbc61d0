"""A pipeline whose model is being rolled out, and what was counted of it, read back plainly."""

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from pipeline_kit import Kit

from serving.config.schema import ModelConfig, MonitoringConfig, RolloutConfig
from serving.config.snapshot import RolloutTraffic, Snapshot
from serving.config.snapshot_codec import dec_hook
from serving.rollout.wire import Batch, Cells, cell_of, scramble_of
from serving.worker.evidence.in_flight import Owner
from serving.worker.evidence.watch import Watch

RULES: list[dict[str, Any]] = [
    {"name": "errors", "metric": "error_rate"},
    {"name": "slow", "metric": "latency", "exceeds": "50ms"},
    {"name": "scores", "metric": "prediction_shift"},
    {"name": "features", "metric": "feature_health"},
    {"name": "agree", "metric": "shadow_agreement", "at_least": 0.9, "within": 0.5},
]


def rollout_of(rules: list[dict[str, Any]] | None = None, **guardrails: Any) -> RolloutConfig:
    """The section of a model: v2 takes over from v1."""
    document = {
        "canary": "v2",
        "steps": [{"weight": 50}, {"weight": 100}],
        "guardrails": {"rules": RULES if rules is None else rules, **guardrails},
    }
    return msgspec.convert(document, RolloutConfig, dec_hook=dec_hook)


def traffic_of(**fields: Any) -> RolloutTraffic:
    """What control says: half of the keys, by bins of the sum at 2 and 4."""
    fields = {
        "id": "m-r1",
        "revision": 3,
        "canary": "v2",
        "production": "v1",
        "weight": 50.0,
        "salt": "m-r1",
        "counting": True,
        "bins": {"scores": [2.0, 4.0]},
        **fields,
    }
    return RolloutTraffic(**fields)


def model_of(
    rules: list[dict[str, Any]] | None = None, prediction: dict[str, Any] | None = None
) -> ModelConfig:
    """A model in a rollout, as its file has it."""
    document = {
        "model": "m",
        "versions": {name: {"path": name, "sha256": name[1] * 64} for name in ("v1", "v2")},
        "traffic": {"production": "v1"},
        "monitoring": {"prediction": prediction or {"score": "sum"}},
    }
    config = msgspec.convert(document, ModelConfig, dec_hook=dec_hook)
    return msgspec.structs.replace(config, rollout=rollout_of(rules))


def in_rollout(
    config: ModelConfig,
    rollout: RolloutConfig | None = None,
    prediction: dict[str, Any] | None = None,
) -> ModelConfig:
    """A model of `Kit` with a rollout, that says what its output means."""
    monitoring = msgspec.convert({"prediction": prediction or {"score": "sum"}}, MonitoringConfig)
    return msgspec.structs.replace(config, rollout=rollout or rollout_of(), monitoring=monitoring)


class RolloutKit(Kit):
    """`Kit` whose model is rolled out; `watch` counts."""

    def __init__(
        self,
        folder: Path,
        *,
        rollout: RolloutConfig | None = None,
        traffic: RolloutTraffic | None = None,
        prediction: dict[str, Any] | None = None,
        **plan: Any,
    ) -> None:
        self.prediction = prediction
        super().__init__(folder, assignment={"key": "key"}, **plan)
        self.folder = folder
        self.rollout = rollout or rollout_of()
        self.rolled = traffic or traffic_of()
        self.urgent = 0
        self.watch: Watch | None = None

    def snapshot(self, revision: int = 1, *, unloaded: bool = False, **traffic: Any) -> Snapshot:
        """With the rollout in it."""
        made = super().snapshot(revision, unloaded=unloaded, **traffic)
        return msgspec.structs.replace(
            made,
            models={"m": in_rollout(made.models["m"], self.rollout, self.prediction)},
            rollouts={"m": self.rolled},
        )

    async def serve(self, revision: int = 1, **plan: Any) -> "RolloutKit":
        """Replace the table and have it watched, as a worker does."""
        await super().serve(revision, **plan)
        config = in_rollout(self.pipeline.table.models["m"].config, self.rollout, self.prediction)
        if self.watch is None:
            owner = Owner(worker="n/worker-0", incarnation="n/w:1", model="m", rollout="m-r1")
            self.watch = Watch(
                config, self.rolled, folder=self.folder, owner=owner, slots=64, urgent=self._hurry
            )
        else:
            self.watch.follow(config, self.rolled)
        self.pipeline.table.models["m"].watch = self.watch
        return self

    def _hurry(self) -> None:
        self.urgent += 1

    def batch(self) -> Batch:
        """What was counted since the last one."""
        assert self.watch is not None
        batch = self.watch.close_batch(1, 0.0)
        assert batch is not None, "nothing was counted"
        return batch

    def place(self, key: int) -> int:
        """Where a key falls."""
        return self.pipeline.table.models["m"].route.place_of(b"%d" % key)

    def cell(self, key: int) -> int:
        """The cell of a key."""
        return cell_of(self.place(key), scramble_of("m-r1"))

    def keys_of(self, version: str, count: int) -> list[int]:
        """Keys that the draw gives to a version."""
        line = 1 << 63
        canary = version == "v2"
        found: list[int] = []
        key = 0
        while len(found) < count:
            if (self.place(key) < line) == canary:
                found.append(key)
            key += 1
        return found


def cells(told: Cells) -> list[int]:
    """The cells that were told, as often as they were."""
    return np.frombuffer(told.cells, "<u4").tolist()


def told(batch: Batch) -> dict[str, Counter[Any]]:
    """By signal and arm: cells, each as often as it was told; None for requests without a key."""
    found: dict[str, Counter[Any]] = {}
    for share in batch.shares:
        signals = {"exposed": share.exposed, **share.events}
        for signal, arms in signals.items():
            for arm, one in (("canary", arms.canary), ("production", arms.production)):
                counted = Counter(cells(one))
                if one.unkeyed:
                    counted[None] = one.unkeyed
                if counted:
                    found.setdefault(f"{signal}/{arm}", Counter()).update(counted)
    return found
