"""What is known of a rollout beside its events: the seam between deciding and counting."""

from typing import Protocol

import msgspec

from serving.config.schema import ModelConfig
from serving.rollout.standing import RuleStanding
from serving.rollout.state import RolloutState

__all__ = ["Evidence", "NoEvidence", "Seen"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence at one look. Counts are of the whole rollout."""

    standings: list[RuleStanding] = []
    samples: int = 0
    """Requests that count, of the new version."""

    production_samples: int = 0
    keys: int = 0
    production_keys: int = 0
    copies: int = 0
    labels: int = 0
    split: str = ""
    """How the shares differ from what was drawn; empty: they do not."""

    tripped: str = ""
    """The hard stop that a worker has hit."""

    production_seconds: list[float] = []
    """Sampled durations of production's requests."""

    excluded: dict[str, list[int]] = {}
    lost: dict[str, int] = {}


class Evidence(Protocol):
    """Adds up what workers count, and says what it proves."""

    async def look(self, state: RolloutState, config: ModelConfig) -> Seen:
        """Take in what is new, and judge.

        Raises:
            StoreUnavailable: nothing new can be had; what was seen last still holds.
            OSError: the disk does not take it, so it does not count yet.
        """
        ...

    async def close(self, rollout: str) -> None:
        """Nothing more will be counted for it."""
        ...


class NoEvidence:
    """For a control process that counts nothing, as in tests: every look sees the same."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def look(self, state: RolloutState, config: ModelConfig) -> Seen:
        """See `Evidence`."""
        del state, config
        return self.seen

    async def close(self, rollout: str) -> None:
        """See `Evidence`."""
