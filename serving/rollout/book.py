"""The book of a rollout: what all workers have counted, each batch once and each key once.

A batch is known by its worker's incarnation and its number. Numbers have no gaps and a worker
keeps what is not confirmed, so a batch at or below the last number of its incarnation is in the
book already, and a number that is skipped is one that will never come.

A key is known by its cell. Each signal has a set of the cells that had it; all bins of a rule
share one, so that a key counts in its first bin. The first event of a cell wins, whichever worker
tells it: counts over all versions and probabilities together do not depend on the order in which
workers are heard. Two keys in one cell count as one; that takes as much from either version, since
a cell does not tell which version its keys are drawn to.

A book is a function of the batches that were added, in their order: added again to an empty book
they give the same one, bit for bit (`serving.rollout.book_codec` writes it down).
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from serving.config.schema import Rule
from serving.rollout.bitmap import Bitmap, places
from serving.rollout.counts import BATCHES, SAMPLED, BookCounts, Pair
from serving.rollout.credible import check
from serving.rollout.wire import Batch, Cells, Share, Unfolded

__all__ = ["CANARY", "PRODUCTION", "SHADOW", "Book", "Folded"]

CANARY: Final = "canary/"
PRODUCTION: Final = "production/"
SHADOW: Final = "shadow/"
"""Names of the sets of keys that met a version, or whose request was copied. No rule has a `/`."""

_OTHER: Final = {CANARY: PRODUCTION, PRODUCTION: CANARY}

_SIGNALS: Final = 1_000
_SETS: Final = 200
_PROBABILITIES: Final = 1_000
_REASONS: Final = 100
_WORDS: Final = 500
"""What a plan can need is far below; above it is no evidence but a fault. 200 sets are 400 MiB."""


class Folded(msgspec.Struct, frozen=True):
    """What is new in an `Unfolded`."""

    unfolded: Unfolded
    """It, with its new batches only, in order of their numbers."""

    missing: int
    """Numbers that were skipped before or between them."""

    rest: int = 0
    """New batches that were left for later."""


class Book:
    """Counts of a rollout, by probability of the canary.

    Args:
        rules: of the plan; tells which signals are bins of one rule.
        counts: of an earlier book; this one goes on from them.
        sets: and its sets of cells, by name.

    It holds 2 MiB for each signal that was ever seen (one for all bins of a rule), and for keys of
    the canary, of production and of copies.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        counts: BookCounts | None = None,
        sets: dict[str, Bitmap] | None = None,
    ) -> None:
        self.follow(rules)
        self.counts = counts or BookCounts()
        """Everything but the sets; whoever reads it leaves it as it is."""

        self.sets = sets if sets is not None else {}
        """Cells by what they had: a signal, a rule with bins, or one of the names above."""

    def follow(self, rules: Iterable[Rule]) -> None:
        """Take the rules of a plan that was changed; what was counted by earlier ones stays."""
        rules = list(rules)
        self._binned = {rule.name for rule in rules if rule.metric == "prediction_shift"}
        self._shadowed = {rule.name for rule in rules if rule.metric == "shadow_agreement"}

    # --- what the judge reads ----------------------------------------------------------------

    def events(self, signal: str) -> dict[float, tuple[int, int]]:
        """By probability: events of canary and production; keys, and requests without one."""
        return _pairs(self.counts.events.get(signal, {}))

    def exposures(self) -> dict[float, tuple[int, int]]:
        """By probability: keys that met canary and production first, and requests without one."""
        return _pairs(self.counts.exposures)

    def signals(self, rule: str) -> list[str]:
        """Signals of a rule that were seen, in order of their names."""
        return sorted(signal for signal in self.counts.events if _rule_of(signal) == rule)

    def crowded(self, rule: str) -> bool:
        """Whether a set of this rule is over half full, so that it can decide nothing any more."""
        names = {SHADOW} if rule in self._shadowed else {rule, *self.signals(rule)}
        return any(self.sets[name].crowded for name in names if name in self.sets)

    @property
    def requests(self) -> tuple[int, int]:
        """Requests that count, of canary and production."""
        return _pair(self.counts.requests)

    @property
    def keys(self) -> tuple[int, int]:
        """Keys that met canary and production, and requests without one.

        A key that met production at a low weight and the canary at a higher one is in both.
        """
        canary, production = self.counts.unkeyed
        return canary + self._filled(CANARY), production + self._filled(PRODUCTION)

    @property
    def keyed(self) -> bool:
        """Whether any request had a key."""
        return bool(self._filled(CANARY) or self._filled(PRODUCTION))

    @property
    def excluded(self) -> dict[str, tuple[int, int]]:
        """By reason: requests of canary and production that do not count."""
        return {reason: _pair(pair) for reason, pair in self.counts.excluded.items()}

    @property
    def shadow(self) -> dict[str, int]:
        """By outcome: keys whose first copy had it, and copies without a key."""
        return dict(self.counts.shadow)

    @property
    def copies(self) -> int:
        """All copies."""
        return self.counts.copies

    @property
    def seconds(self) -> tuple[list[float], list[float]]:
        """Sampled durations of canary and production, the latest 500 of each, oldest first."""
        canary, production = self.counts.seconds
        return list(canary), list(production)

    @property
    def folded(self) -> dict[str, int]:
        """Incarnation to the number of its last batch that is in the book."""
        return dict(self.counts.folded)

    @property
    def lost(self) -> dict[str, int]:
        """By reason: what is known not to be in the book."""
        return dict(self.counts.lost)

    @property
    def tripped(self) -> str:
        """The first hard stop that a worker has hit, in words; empty: none."""
        return self.counts.tripped

    # --- adding ------------------------------------------------------------------------------

    def fresh(self, unfolded: Unfolded, most: int | None = None) -> Folded:
        """What of `unfolded` is not in the book; changes nothing.

        Args:
            unfolded: of one worker.
            most: so many batches at most, the first ones. None: all.

        Raises:
            ValueError: it holds what no worker counts; nothing of it may be added.
        """
        folded = self._new(unfolded, most)
        for batch in folded.unfolded.batches:
            check(batch)
        self._check_room(folded.unfolded.batches)
        return folded

    def fold(self, unfolded: Unfolded) -> Folded:
        """Add what is not in the book yet, and tell what that was. Twice is as good as once.

        Raises:
            ValueError: as `fresh`; nothing is added.
        """
        return self.add(self.fresh(unfolded).unfolded)

    def add(self, unfolded: Unfolded) -> Folded:
        """`fold` for what was found to be `fresh` before, and is not looked at again."""
        folded = self._new(unfolded)
        for batch in folded.unfolded.batches:
            for share in batch.shares:
                self._add_share(share)
            self._add_rest(batch)
            self.counts.folded[unfolded.incarnation] = batch.number
        self._lose(BATCHES, folded.missing)
        return folded

    def _new(self, unfolded: Unfolded, most: int | None = None) -> Folded:
        last = self.counts.folded.get(unfolded.incarnation, 0)
        by_number = {batch.number: batch for batch in unfolded.batches if batch.number > last}
        new = [by_number[number] for number in sorted(by_number)[:most]]
        missing = new[-1].number - last - len(new) if new else 0
        rest = len(by_number) - len(new)
        return Folded(msgspec.structs.replace(unfolded, batches=new), missing, rest)

    def _add_share(self, share: Share) -> None:
        counts, rho, met = self.counts, share.rho, share.exposed
        _add(counts.requests, share.requests)
        _add(counts.unkeyed, (met.canary.unkeyed, met.production.unkeyed))
        first = self._first_met(CANARY, met.canary), self._first_met(PRODUCTION, met.production)
        if any(first):
            _add(counts.exposures.setdefault(rho, [0, 0]), first)
        for signal, arms in share.events.items():
            name = self._set_name(signal)
            new = self._had(name, arms.canary), self._had(name, arms.production)
            if any(new):
                _add(counts.events.setdefault(signal, {}).setdefault(rho, [0, 0]), new)
        for reason, requests in share.excluded.items():
            _add(counts.excluded.setdefault(reason, [0, 0]), requests)

    def _first_met(self, version: str, cells: Cells) -> int:
        """Keys that meet `version`, and had met none before; and requests without a key."""
        if not cells.cells:
            return cells.unkeyed
        mine = self._set(version)
        new = mine.without(places(cells.cells))
        mine.add(new)
        if len(new) and (other := self.sets.get(_OTHER[version])):
            new = other.without(new)
        return len(set(new.tolist())) + cells.unkeyed

    def _had(self, name: str, cells: Cells) -> int:
        """Keys that have what the set tells of for the first time; and requests without a key."""
        if not cells.cells:
            return cells.unkeyed
        return self._set(name).add(places(cells.cells)) + cells.unkeyed

    def _add_rest(self, batch: Batch) -> None:
        counts, told = self.counts, 0
        for outcome, cells in batch.shadow.items():
            counts.shadow[outcome] = counts.shadow.get(outcome, 0) + self._had(SHADOW, cells)
            told += len(cells.cells) // 4 + cells.unkeyed
        counts.copies += max(told, batch.copies)
        for kept, seconds in zip(counts.seconds, batch.seconds, strict=True):
            kept.extend(seconds)
            del kept[:-SAMPLED]
        for reason, requests in batch.lost.items():
            self._lose(reason, requests)
        counts.tripped = counts.tripped or batch.tripped[:_WORDS]

    def _lose(self, reason: str, number: int) -> None:
        if number:
            self.counts.lost[reason] = self.counts.lost.get(reason, 0) + number

    def _filled(self, name: str) -> int:
        return self.sets[name].filled if name in self.sets else 0

    def _set(self, name: str) -> Bitmap:
        found = self.sets.get(name)
        if found is None:
            found = self.sets[name] = Bitmap()
        return found

    def _set_name(self, signal: str) -> str:
        rule = _rule_of(signal)
        return rule if rule in self._binned else signal

    # --- refusing ----------------------------------------------------------------------------

    def _check_room(self, batches: list[Batch]) -> None:
        counts, shares = self.counts, [share for batch in batches for share in batch.shares]
        rhos = counts.exposures.keys() | {share.rho for share in shares}
        signals = counts.events.keys() | {signal for share in shares for signal in share.events}
        sets = {self._set_name(signal) for signal in signals}
        reasons = counts.excluded.keys() | {reason for share in shares for reason in share.excluded}
        outcomes = counts.shadow.keys() | {outcome for batch in batches for outcome in batch.shadow}
        losses = counts.lost.keys() | {reason for batch in batches for reason in batch.lost}
        for what, found, most in (
            ("probabilities", rhos, _PROBABILITIES),
            ("signals", signals, _SIGNALS),
            ("signals of their own", sets, _SETS),
            ("reasons", reasons, _REASONS),
            ("outcomes of copies", outcomes, _REASONS),
            ("kinds of losses", losses, _REASONS),
        ):
            if len(found) > most:
                raise ValueError(f"{len(found)} {what} are more than {most}, the most of a rollout")


def _rule_of(signal: str) -> str:
    return signal.partition(":")[0]


def _add(pair: Pair, more: Sequence[int]) -> None:
    pair[0] += more[0]
    pair[1] += more[1]


def _pair(pair: Pair) -> tuple[int, int]:
    return pair[0], pair[1]


def _pairs(by_rho: dict[float, Pair]) -> dict[float, tuple[int, int]]:
    return {rho: _pair(pair) for rho, pair in by_rho.items()}
