"""What a verb did, and whether there was anything to do. Pure."""

import msgspec
from msgspec.structs import replace

from serving.config.schema import ModelConfig
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import encode_snapshot
from serving.control.publishing.compile import Compiled, Staged
from serving.control.publishing.plan import Plan

__all__ = ["Outcome", "outcome_of", "serve_the_same"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb did. `published`: `revision` is new; otherwise it is the one that was there.

    `rollouts` are the models that have a rollout there.
    """

    plan: Plan
    revision: int
    published: bool
    warnings: list[str] = []
    rollouts: dict[str, ModelConfig] = {}
    staged: Staged = {}
    """Their versions' files, by model."""


def outcome_of(compiled: Compiled, plan: Plan, *, revision: int, published: bool) -> Outcome:
    """What came of a directory: `revision` is the one that is served now."""
    return Outcome(
        plan=plan,
        revision=revision,
        published=published,
        warnings=compiled.warnings,
        rollouts={
            name: model
            for name, model in compiled.configuration.models.items()
            if model.rollout is not None
        },
        staged=compiled.staged,
    )


def serve_the_same(one: Snapshot | None, other: Snapshot) -> bool:
    """Whether two snapshots serve the same; revision, author and time do not matter."""
    if one is None:
        return False
    alike = replace(other, revision=one.revision, author=one.author, published_at=one.published_at)
    return encode_snapshot(one) == encode_snapshot(alike)
