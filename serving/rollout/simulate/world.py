"""How often each thing that a plan counts happens, with production and with the new version."""

from collections.abc import Sequence
from typing import Final

import msgspec

from serving.config.schema import Rule

__all__ = ["CANARIES", "USERS", "Canary", "Signal", "World", "signals_of"]

USERS: Final = "users"
"""Name of the signal that a user has met production."""

TENTHS: Final = (0.1,) * 10
QUANTILES: Final = (0.5, 0.1, 0.01)
"""Shares of requests beyond production's 50th, 90th and 99th percentile."""


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Production's traffic. Shares are of requests."""

    requests_per_second: float = 100.0
    error_rate: float = 0.005
    slow: float = 0.01
    """Beyond the bound of a latency rule with `exceeds`."""

    not_fresh: float = 0.01
    """With a feature that is not fresh."""

    bins: tuple[float, ...] = TENTHS
    """By class of the prediction, or tenth of its scores."""


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """The new version, by how many times as often something happens with it."""

    errors: float = 1.0
    tail: float = 1.0
    """Requests beyond the 99th percentile, or beyond `exceeds`; others are as fast."""

    not_fresh: float = 1.0
    flips: float = 0.0
    """Share of keys whose prediction moves to the last bin."""

    always_fails: bool = False

    @property
    def good(self) -> bool:
        """Whether it is just like production."""
        return self == Canary()


CANARIES: Final[dict[str, Canary]] = {
    "as-good": Canary(),
    "better": Canary(errors=0.5),
    "fails-half-more": Canary(errors=1.5),
    "fails-twice-as-often": Canary(errors=2.0),
    "fails-four-times-as-often": Canary(errors=4.0),
    "always-fails": Canary(always_fails=True),
    "slow-tail": Canary(tail=3.0),
    "flipped": Canary(flips=0.02),
}
"""By name. `slow-tail` has three times as many requests beyond the 99th percentile and is as fast
as production otherwise; `flipped` predicts something else for 2 % of the keys."""


class Signal(msgspec.Struct, frozen=True):
    """One thing that is counted."""

    rule: str
    name: str
    production: float
    """Its share of production's requests."""

    canary: float
    """Its share of the new version's, before what both share."""

    shared: bool = True
    """Whether what is bad for both moves it."""

    bins: tuple[tuple[float, float], ...] = ()
    """Instead of both shares: production's and the canary's, bin by bin; a unit has one."""


def signals_of(rule: Rule, world: World, canary: Canary) -> Sequence[Signal]:
    """What a rule counts; nothing for a rule that needs labels, copies or a fixed limit."""
    if rule.test == "threshold":
        return ()

    def of(name: str, share: float, ratio: float) -> Signal:
        return Signal(rule.name, name, share, min(1.0, share * ratio))

    found: Sequence[Signal] = ()
    if rule.metric == "error_rate":
        ratio = 1 / world.error_rate if canary.always_fails else canary.errors
        found = (of(rule.name, world.error_rate, ratio),)
    elif rule.metric == "feature_health":
        found = (of(rule.name, world.not_fresh, canary.not_fresh),)
    elif rule.metric == "latency" and rule.exceeds is not None:
        found = (of(rule.name, world.slow, canary.tail),)
    elif rule.metric == "latency":
        last = len(QUANTILES) - 1
        found = [
            of(f"{rule.name}:{place}", share, canary.tail if place == last else 1.0)
            for place, share in enumerate(QUANTILES)
        ]
    elif rule.metric == "prediction_shift":
        found = (_binned(rule.name, world.bins, canary.flips),)
    return found


def _binned(rule: str, bins: Sequence[float], flips: float) -> Signal:
    last = len(bins) - 1
    moved = [
        share * (1 - flips) + (flips if place == last else 0.0) for place, share in enumerate(bins)
    ]
    pairs = tuple(zip(bins, moved, strict=True))
    return Signal(rule, rule, 1.0, 1.0, shared=False, bins=pairs)
