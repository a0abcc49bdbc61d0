"""What control publishes and workers serve: one configuration under one revision.

Kept apart from the YAML schema, because a snapshot is made by a program: it holds absolute
paths of staged artifacts and the signatures read from them. A worker ignores a revision
that is not higher than its own.
"""

from typing import Any

import msgspec

from feature_cache.views import FeatureView
from serving.config.schema import ModelConfig
from serving.config.units import ByteSize, Seconds
from serving.types import Signature

__all__ = ["Snapshot", "StagedVersion", "decode", "encode"]


class StagedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One model file, copied under the data directory by digest and checked."""

    path: str
    sha256: str
    signature: Signature


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


def _units(kind: type, text: object) -> Any:
    if kind is Seconds or kind is ByteSize:
        return kind.parse(text)
    raise NotImplementedError(kind)  # msgspec's own message names the type


def encode(snapshot: Snapshot) -> bytes:
    """Write a snapshot as JSON; durations and sizes as in YAML (`50ms`, `16MiB`)."""
    return msgspec.json.encode(snapshot, enc_hook=str)


def decode(content: bytes | memoryview) -> Snapshot:
    """Read what `encode` wrote. Raises msgspec.MsgspecError for anything else."""
    return msgspec.json.decode(content, type=Snapshot, dec_hook=_units)
