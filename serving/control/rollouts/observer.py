"""What is known of a rollout beside its events: the seam between deciding and counting."""

from contextlib import suppress
from typing import Protocol

import msgspec

from serving.clock import Clock
from serving.config.schema import ModelConfig
from serving.config.snapshot import RolloutTraffic
from serving.control.rollouts.evidence import Evidence
from serving.control.rollouts.labels import LabelEvidence, RolloutLabels
from serving.errors import StoreUnavailable
from serving.rollout.book import Book
from serving.rollout.evidence.sample_ratio import words_of
from serving.rollout.judge import judge
from serving.rollout.looks import RuleLook, looked
from serving.rollout.standing import RuleStanding
from serving.rollout.state import RolloutState

__all__ = ["BookObserver", "NoObserver", "Observer", "Seen"]


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


class Observer(Protocol):
    """Adds up what workers count, and says what it proves."""

    async def look(
        self, state: RolloutState, config: ModelConfig, traffic: RolloutTraffic | None
    ) -> Seen:
        """Take in what is new, and judge.

        Args:
            state: the rollout.
            config: the model's, with the plan.
            traffic: what is in place now.

        Raises:
            OSError: the disk does not take what is new, so it does not count yet.
        """
        ...

    async def close(self, rollout: str) -> None:
        """Nothing more will be counted for it. Raises OSError."""
        ...


class NoObserver:
    """For a control process that counts nothing, as in tests: every look sees the same."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def look(
        self, state: RolloutState, config: ModelConfig, traffic: RolloutTraffic | None
    ) -> Seen:
        """See `Observer`."""
        del state, config, traffic
        return self.seen

    async def close(self, rollout: str) -> None:
        """See `Observer`."""


class BookObserver:
    """Reads the book of what workers have counted, and what labels say.

    Args:
        evidence: the books.
        labels: what is joined with the prediction log.
        clock: the time.
    """

    def __init__(self, evidence: Evidence, labels: RolloutLabels, clock: Clock) -> None:
        self._evidence = evidence
        self._labels = labels
        self._clock = clock
        self._looks: dict[str, dict[str, RuleLook]] = {}

    async def look(
        self, state: RolloutState, config: ModelConfig, traffic: RolloutTraffic | None
    ) -> Seen:
        """See `Observer`. While the store is away it sees what it saw before."""
        plan = config.rollout
        assert plan is not None
        book = await self._evidence.open(state.model, state.id, plan.guardrails.rules)
        with suppress(StoreUnavailable):  # what is in the book counts; a proof still aborts
            book = await self._evidence.look(state.id)
        labels = self._labels.latest(
            state.id, config, production=state.production, began=state.began
        )
        before = self._looks.get(state.id, {})
        looks = self._looks[state.id] = looked(plan, book, before, self._clock.wall())
        standings = judge(plan, book, looks=looks, labels=labels.rules, traffic=traffic)
        return _seen(book, labels, standings, self._evidence.lost(state.id))

    async def close(self, rollout: str) -> None:
        """See `Observer`."""
        self._looks.pop(rollout, None)
        await self._labels.forget(rollout)
        await self._evidence.close(rollout)
        with suppress(StoreUnavailable):  # a few bytes stay there
            await self._evidence.forget(rollout)


def _seen(
    book: Book, labels: LabelEvidence, standings: list[RuleStanding], lost: dict[str, int]
) -> Seen:
    (samples, production_samples), (keys, production_keys) = book.requests, book.keys
    return Seen(
        standings=standings,
        samples=samples,
        production_samples=production_samples,
        keys=keys,
        production_keys=production_keys,
        copies=book.copies,
        labels=labels.labels,
        split=words_of(book.exposures()),
        tripped=book.tripped,
        production_seconds=book.seconds[1],
        excluded={reason: list(pair) for reason, pair in book.excluded.items()},
        lost=lost,
    )
