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

__all__ = ["Snapshot", "StagedVersion"]


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
