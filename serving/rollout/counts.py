"""What a rollout's book has counted, without the cells that say which keys those were."""

from typing import Final

import msgspec

__all__ = ["BATCHES", "SAMPLED", "BookCounts", "Pair"]

BATCHES: Final = "batches_that_never_came"
"""Reason of losses: a later batch of the same worker did come; each is up to 250 ms of it."""

SAMPLED: Final = 500
"""Durations kept of each version, the latest."""

Pair = list[int]
"""Of the canary, of production."""


class BookCounts(msgspec.Struct, kw_only=True):
    """Counts of a rollout, as they stand in `sluice:rollout:ID:book` (JSON)."""

    folded: dict[str, int] = msgspec.field(default_factory=dict)
    """Incarnation to the number of its last batch that is counted here."""

    requests: Pair = msgspec.field(default_factory=lambda: [0, 0])
    """Requests that count."""

    unkeyed: Pair = msgspec.field(default_factory=lambda: [0, 0])
    """Those of them that had no key."""

    exposures: dict[float, Pair] = msgspec.field(default_factory=dict)
    """By probability of the canary: keys that met their first version under it, and requests
    without a key."""

    events: dict[str, dict[float, Pair]] = msgspec.field(default_factory=dict)
    """By signal and probability: keys that had it, and requests without a key."""

    excluded: dict[str, Pair] = msgspec.field(default_factory=dict)
    """By reason: requests that do not count."""

    shadow: dict[str, int] = msgspec.field(default_factory=dict)
    """By outcome: keys whose first copy had it, and copies without a key."""

    copies: int = 0
    """All copies, however often a key had one."""

    seconds: tuple[list[float], list[float]] = msgspec.field(default_factory=lambda: ([], []))
    """Sampled durations, the latest `SAMPLED` of each version."""

    tripped: str = ""
    """The first hard stop that a worker has hit, in words."""

    lost: dict[str, int] = msgspec.field(default_factory=dict)
    """By reason: what workers could not tell of, in requests; and `BATCHES`."""
