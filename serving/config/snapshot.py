"""What control publishes and workers serve: one configuration under one revision.

Kept apart from the YAML schema, because a snapshot is made by a program: it holds absolute
paths of staged artifacts and the signatures read from them. A worker ignores a revision
that is not higher than its own.
"""

import msgspec

from feature_cache.views import FeatureView
from serving.config.frozen_bins import Reference
from serving.config.schema import ModelConfig
from serving.types import Signature

__all__ = ["RolloutTraffic", "Snapshot", "StagedVersion"]


class StagedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One model file, copied under the data directory by digest and checked; or another server.

    For the latter `urls` are its addresses, `path` is empty, `sha256` digests what it said of
    itself, and `binary` tells whether it takes tensors as raw bytes.
    """

    path: str
    sha256: str
    signature: Signature
    urls: list[str] = []
    binary: bool = True


class RolloutTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout makes of a model's traffic plan, and what workers count for it.

    Workers put it over the plan of the file (`serving.traffic.rolled`). It stays after the rollout:
    of one that is done, `production` is the new version until the file says so too.
    """

    id: str
    """`<model>-r<number>`, never used again."""

    revision: int
    """Of the rollout's events; grows with each."""

    canary: str
    production: str
    """Who answers what the canary does not."""

    weight: float = 0.0
    """Percent of keys that the canary answers."""

    shadow: float = 0.0
    """Percent of requests copied to the canary."""

    salt: str = ""
    """What keys are placed with, so that each rollout draws a cohort of its own."""

    step: int = 0
    counting: bool = False
    """Whether workers count evidence now."""

    latency_bounds: dict[str, list[float]] = {}
    """By rule: seconds frozen from production before the step, of rules without `exceeds`."""

    bins: dict[str, list[float]] = {}
    """By rule: inner edges of the bins that scores are counted into; none for labels."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to serve.

    `staged` is keyed by model, then version. `unloaded` names models that the repository
    API has unloaded: known, listed, answering ModelNotReady.
    """

    revision: int
    published_at: float
    author: str
    models: dict[str, ModelConfig]
    views: dict[str, FeatureView]
    staged: dict[str, dict[str, StagedVersion]]
    unloaded: list[str] = []
    references: dict[str, Reference] = {}
    """By model: the bins that its traffic is counted into."""

    rollouts: dict[str, RolloutTraffic] = {}
    """By model: what its rollout makes of the plan."""
