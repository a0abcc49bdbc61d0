"""What came out of a training is a shadow first: a rule about published revisions. Pure.

And as a shadow it must have done no worse than production, slice by slice, as far as labels tell.
"""

from collections.abc import Iterator, Mapping

from serving.config.schema import ModelConfig
from serving.config.snapshot import Snapshot, StagedVersion
from serving.traffic.rolled import effective

__all__ = ["Place", "shadows", "unseen"]

Place = tuple[str, str]
"""A model and the digest of a file: another file under an old name was never a shadow."""


def shadows(snapshot: Snapshot) -> Iterator[Place]:
    """Every file that is a shadow there."""
    for name, config in effective(snapshot).items():
        for shadow in config.traffic.shadow:
            staged = snapshot.staged.get(name, {}).get(shadow.version)
            if staged is not None:
                yield name, staged.sha256


def unseen(
    models: Mapping[str, ModelConfig],
    staged: Mapping[str, Mapping[str, StagedVersion]],
    current: Snapshot | None,
) -> dict[Place, str]:
    """Candidates that are to answer and do not yet: each must have been a shadow before.

    Args:
        models: those that are to be served.
        staged: their files.
        current: what is served now; what answers there already may go on.

    Returns:
        For each, what is wrong if it never was one.
    """
    answering = (
        set(_answering(effective(current), current.staged)) if current is not None else set()
    )
    found: dict[Place, str] = {}
    for name, version, role, sha256 in _answering(models, staged):
        is_candidate = models[name].versions[version].candidate
        if is_candidate and (name, version, role, sha256) not in answering:
            found[name, sha256] = (
                f"models/{name}.yaml: `{version}` is a candidate and was never a shadow, so it "
                f"cannot be {role}: put it under traffic.shadow, apply that, and look at it first"
            )
    return found


def _answering(
    models: Mapping[str, ModelConfig], staged: Mapping[str, Mapping[str, StagedVersion]]
) -> Iterator[tuple[str, str, str, str]]:
    """Model, version, role and digest of whatever answers requests."""
    for name, config in models.items():
        traffic = config.traffic
        roles = [(traffic.production, "production")]
        if traffic.canary is not None:
            roles.append((traffic.canary.version, "canary"))
        if config.rollout is not None and config.rollout.steps[0].shadow is None:
            roles.append((config.rollout.canary, "canary"))
        for version, role in roles:
            one = staged.get(name, {}).get(version)
            if one is not None:
                yield name, version, role, one.sha256
