"""The route table: which version answers a request, and who gets a copy.

Compiled from configuration, immutable, replaced as a whole. `ModelRoute.pick` is the draw, a pure
function of the key's place or of one random number; `override` and `pin` are for requests that are
not drawn.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from serving.config.schema import Assignment, ModelConfig
from serving.errors import InvalidRequest, ModelNotFound
from serving.traffic.overrides import Match, Overrides
from serving.traffic.split import LINE, Splitter, threshold
from serving.types import Principal

__all__ = ["Decision", "ModelRoute", "RouteTable"]

TrafficRole = Literal["production", "canary", "pinned"]
Reason = Literal[
    "only", "assigned", "random", "missing_key", "version", "override", "fallback", "hard_stop"
]  # fmt: skip


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Who answers one request, and why.

    `probability` is the chance that a request with an unknown key gets this version by
    assignment; 0.0 where nobody drew lots (a pinned version), so that analysis leaves it out.
    `mirrors` are the versions that get a copy. `analysed`: nobody drew lots, and a rollout counts
    the request all the same. `fallback` is what is asked if this one fails.
    """

    version: str
    role: TrafficRole
    probability: float
    reason: Reason
    mirrors: tuple[str, ...] = ()
    analysed: bool = False
    fallback: "Decision | None" = None


class _Shadow(msgspec.Struct, frozen=True):
    version: str
    threshold: int


class ModelRoute:
    """One model's traffic plan, compiled."""

    __slots__ = (
        "_canary",
        "_decisions",
        "_fallback",
        "_on_missing_key",
        "_overridden",
        "_shadows",
        "_threshold",
        "assignment",
        "copies",
        "copy_place_of",
        "model",
        "only",
        "overrides",
        "place_of",
        "production",
        "versions",
        "weighs",
    )

    def __init__(self, config: ModelConfig) -> None:
        traffic = config.traffic
        salt = traffic.assignment.salt or config.model
        self.model = config.model
        self.production = traffic.production
        self.versions = frozenset(config.versions)
        self.assignment: Assignment = traffic.assignment
        self.overrides = Overrides(traffic.overrides, traffic.production)
        self._overridden: dict[Match, Decision] = {}
        self._on_missing_key = traffic.assignment.on_missing_key
        self.place_of: Callable[[bytes], int] = Splitter(salt).place
        """Where a key falls for the canary: it has it iff that is below the weight's share."""

        # Another salt than the canary's, or the copies would come from the canary's cohort.
        self.copy_place_of: Callable[[bytes], int] = Splitter(f"{salt}/mirror").place
        """Where a key falls for copies."""

        self._canary = traffic.canary.version if traffic.canary else None
        self._threshold = threshold(traffic.canary.weight) if traffic.canary else 0
        falls_back = traffic.fallback.on_canary_error == "production"
        self._fallback = (
            Decision(traffic.production, "production", 0.0, "fallback") if falls_back else None
        )
        self._shadows = tuple(
            _Shadow(shadow.version, threshold(shadow.percent))
            for shadow in traffic.shadow
            if shadow.percent > 0
        )
        self.weighs = self._threshold > 0
        """Whether a canary has a share."""

        self.copies = bool(self._shadows)
        """Whether anybody gets copies."""

        self._decisions: dict[tuple[bool, Reason, int], Decision] = {}
        self.only = self._decide(False, "only", 0) if not self.draws else None
        """What everybody gets who asks for nothing else, where no lots are drawn."""

    @property
    def draws(self) -> bool:
        """Whether any request's way depends on a key or on chance."""
        return self.weighs or self.copies

    @property
    def falls_back(self) -> bool:
        """Whether production is asked what the canary did not answer."""
        return self._fallback is not None

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
                fallback=self._fallback if canary else None,
            )
            self._decisions[canary, reason, mask] = decision
        return decision

    def _mask(self, place: int) -> int:
        mask = 0
        for index, shadow in enumerate(self._shadows):
            if place < shadow.threshold:
                mask |= 1 << index
        return mask

    def assign(self, key: bytes | None, draw: int = 0) -> Decision:
        """Assign a request by its key, or by `draw` if it has none; see `pick`."""
        if key is None:
            return self.pick(None, draw)
        return self.pick(self.place_of(key), self.copy_place_of(key))

    def pick(self, place: int | None, draw: int) -> Decision:
        """Assign a request.

        Args:
            place: where its key falls (`place_of`), None if it has none.
            draw: a number below 2⁶⁴: where its key falls for copies (`copy_place_of`; needed
                only if the plan `copies`), or a random one if it has none.

        Raises:
            InvalidRequest: the plan insists on a key.
        """
        if self.only is not None:
            return self.only
        if place is not None:
            mask = self._mask(draw) if self.copies else 0
            return self._decide(place < self._threshold, "assigned", mask)
        # The mirror's draw must not be the canary's: multiply by an odd constant (a bijection).
        mask = self._mask(draw * 0x9E3779B97F4A7C15 % LINE) if self.copies else 0
        if not self.weighs:
            return self._decide(False, "random", mask)
        if self._on_missing_key == "random":
            return self._decide(draw < self._threshold, "random", mask)
        if self._on_missing_key == "production":
            return self._decide(False, "missing_key", mask)
        name = self.assignment.key or self.assignment.header
        raise InvalidRequest(
            f"model '{self.model}' assigns versions by '{name}', and the request has none"
        )

    def override(
        self, headers: Mapping[str, str], principal: Principal, key: bytes | None
    ) -> Decision | None:
        """Say what this request gets without a draw; None if it is drawn. No shadow gets a copy.

        Raises:
            PermissionDenied: a header that this caller may not use.
            ModelNotFound: a header names a version that there is not.
        """
        match = self.overrides.find(headers, principal, key)
        if match is None:
            return None
        decision = self._overridden.get(match)
        if decision is None:
            decision = self.pin(match.version, "override")
            if match.analysed and match.version in (self.production, self._canary):
                share = self._threshold / LINE
                is_canary = match.version != self.production
                decision = msgspec.structs.replace(
                    decision,
                    role="canary" if is_canary else "production",
                    probability=share if is_canary else 1.0 - share,
                    analysed=True,
                )
            self._overridden[match] = decision  # of versions that there are, so there are few
        return decision

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
