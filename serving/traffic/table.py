"""The route table: which version answers a request, and who gets a copy.

Compiled from configuration, immutable, replaced as a whole. `ModelRoute.pick` is the only
decision; it is a pure function of the key, the caller's wish and one random number.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from serving.config.schema import Assignment, ModelConfig, Override
from serving.errors import InvalidRequest, ModelNotFound
from serving.traffic.split import LINE, Splitter, threshold

__all__ = ["Decision", "ModelRoute", "RouteTable"]

TrafficRole = Literal["production", "canary", "pinned"]
Reason = Literal["only", "assigned", "random", "missing_key", "version", "override"]


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Who answers one request, and why.

    `probability` is the chance that a request with an unknown key gets this version by
    assignment; 0.0 where nobody drew lots (a pinned version), so that analysis leaves it out.
    `mirrors` are the versions that get a copy.
    """

    version: str
    role: TrafficRole
    probability: float
    reason: Reason
    mirrors: tuple[str, ...] = ()


class _Shadow(msgspec.Struct, frozen=True):
    version: str
    threshold: int


class ModelRoute:
    """One model's traffic plan, compiled."""

    __slots__ = (
        "_canary",
        "_decisions",
        "_mirrored",
        "_on_missing_key",
        "_only",
        "_shadows",
        "_splitter",
        "_threshold",
        "assignment",
        "model",
        "overrides",
        "production",
        "versions",
    )

    def __init__(self, config: ModelConfig) -> None:
        traffic = config.traffic
        salt = traffic.assignment.salt or config.model
        self.model = config.model
        self.production = traffic.production
        self.versions = frozenset(config.versions)
        self.assignment: Assignment = traffic.assignment
        self.overrides: tuple[Override, ...] = tuple(traffic.overrides)
        self._on_missing_key = traffic.assignment.on_missing_key
        self._splitter = Splitter(salt)
        # Another salt than the canary's, or the copies would come from the canary's cohort.
        self._mirrored = Splitter(f"{salt}/mirror")
        self._canary = traffic.canary.version if traffic.canary else None
        self._threshold = threshold(traffic.canary.weight) if traffic.canary else 0
        self._shadows = tuple(
            _Shadow(shadow.version, threshold(shadow.percent))
            for shadow in traffic.shadow
            if shadow.percent > 0
        )
        self._decisions: dict[tuple[bool, Reason, int], Decision] = {}
        self._only = self._decide(False, "only", 0) if not self.draws else None

    @property
    def draws(self) -> bool:
        """Whether any request's way depends on a key or on chance."""
        return self._threshold > 0 or bool(self._shadows)

    def _decide(self, canary: bool, reason: Reason, mask: int) -> Decision:
        """Find or make the one Decision for an outcome; there are few, so all are shared."""
        decision = self._decisions.get((canary, reason, mask))
        if decision is None:
            version = self._canary if canary else self.production
            assert version is not None
            share = self._threshold / LINE
            if reason in ("only", "missing_key"):
                probability = 1.0
            else:
                probability = share if canary else 1.0 - share
            decision = Decision(
                version=version,
                role="canary" if canary else "production",
                probability=probability,
                reason=reason,
                mirrors=tuple(
                    shadow.version
                    for index, shadow in enumerate(self._shadows)
                    if mask >> index & 1 and shadow.version != version
                ),
            )
            self._decisions[canary, reason, mask] = decision
        return decision

    def _mask(self, place: int) -> int:
        mask = 0
        for index, shadow in enumerate(self._shadows):
            if place < shadow.threshold:
                mask |= 1 << index
        return mask

    def pick(self, key: bytes | None, draw: int) -> Decision:
        """Assign a request.

        Args:
            key: the assignment key, None if the request has none.
            draw: a random number below 2⁶⁴, used in place of a missing key.

        Raises:
            InvalidRequest: the plan insists on a key.
        """
        if self._only is not None:
            return self._only
        if key is not None:
            mask = self._mask(self._mirrored.place(key)) if self._shadows else 0
            canary = self._threshold > 0 and self._splitter.place(key) < self._threshold
            return self._decide(canary, "assigned", mask)
        # The mirror's draw must not be the canary's: multiply by an odd constant (a bijection).
        mask = self._mask(draw * 0x9E3779B97F4A7C15 % LINE) if self._shadows else 0
        if self._threshold == 0:
            return self._decide(False, "random", mask)
        if self._on_missing_key == "random":
            return self._decide(draw < self._threshold, "random", mask)
        if self._on_missing_key == "production":
            return self._decide(False, "missing_key", mask)
        name = self.assignment.key or self.assignment.header
        raise InvalidRequest(
            f"model '{self.model}' assigns versions by '{name}', and the request has none"
        )

    def pin(self, version: str, reason: Literal["version", "override"]) -> Decision:
        """Give the caller the version asked for by name. Raises ModelNotFound."""
        if version not in self.versions:
            raise ModelNotFound(
                f"Request for unknown model: '{self.model}' has no version '{version}'"
            )
        return Decision(version=version, role="pinned", probability=0.0, reason=reason)


class RouteTable(msgspec.Struct, frozen=True):
    """Every model's route under one revision."""

    revision: int
    models: Mapping[str, ModelRoute]

    @classmethod
    def compile(cls, models: Mapping[str, ModelConfig], revision: int) -> "RouteTable":
        """Compile a checked configuration; the result never changes."""
        return cls(revision, {name: ModelRoute(config) for name, config in models.items()})

    def model(self, name: str) -> ModelRoute:
        """Find a model. Raises ModelNotFound."""
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(f"Request for unknown model: '{name[:128]}' is not found") from None
