"""From ended requests to a `Batch`: every key once per signal, with numpy, many at a time. Pure.

A request leaves one tuple behind (`Note`); several hundred are added up together, which costs a
fraction of a microsecond each.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.rollout.wire import CELLS, Arms, Batch, Cells, Share
from serving.worker.evidence_faults import Fault
from serving.worker.evidence_rules import CountPlan, PredictionRule, label_of

__all__ = ["CANARY", "DEFAULTED", "PRODUCTION", "UNWELL", "Counting", "Note", "Told"]

CANARY: Final = 0
PRODUCTION: Final = 1

UNWELL: Final = 1
"""Flag: some view's status was not OK."""

DEFAULTED: Final = 2
"""Flag: a default stood for a value, so that the answer says nothing of the version."""

Note = tuple[int | None, Fault | None, float, int, list[Any] | None]
"""Place of the key (None: it has none), what went wrong, seconds, flags, and `sources`' values."""

_LABELS: Final = 64
"""Classes told apart; more are counted together, as `other`."""

_DURATIONS: Final = 200
"""Most durations of an arm in a batch."""


class Told:
    """Which cells have been told of: one bit each."""

    def __init__(self) -> None:
        self._bits = np.zeros(CELLS >> 3, np.uint8)  # 2 MiB, of which untouched pages cost nothing

    def fresh(self, cells: NDArray[np.uint32]) -> NDArray[np.intp]:
        """Where among these cells are those not told of, each once, in order; they are now."""
        cells, first = np.unique(cells, return_index=True)
        byte, bit = cells >> 3, np.uint8(1) << (cells & 7).astype(np.uint8)
        new = (self._bits[byte] & bit) == 0
        np.bitwise_or.at(self._bits, byte[new], bit[new])
        found = first[new]
        found.sort()
        return found


class _Pile:
    """Cells of one arm and signal, until the batch is closed."""

    __slots__ = ("cells", "unkeyed")

    def __init__(self) -> None:
        self.cells: list[NDArray[np.uint32]] = []
        self.unkeyed = 0

    def wire(self) -> Cells:
        content = np.concatenate(self.cells).astype("<u4").tobytes() if self.cells else b""
        return Cells(content, self.unkeyed)


def _arms(piles: tuple[_Pile, _Pile]) -> Arms:
    return Arms(piles[CANARY].wire(), piles[PRODUCTION].wire())


class _Open:
    """What one probability has gathered since the last batch."""

    __slots__ = ("events", "excluded", "exposed", "requests")

    def __init__(self) -> None:
        self.requests = [0, 0]
        self.exposed = (_Pile(), _Pile())
        self.events: dict[str, tuple[_Pile, _Pile]] = {}
        self.excluded: dict[str, list[int]] = {}

    def pile(self, signal: str, arm: int) -> _Pile:
        piles = self.events.get(signal)
        if piles is None:
            piles = self.events[signal] = (_Pile(), _Pile())
        return piles[arm]

    def exclude(self, reason: str, arm: int, count: int) -> None:
        self.excluded.setdefault(reason, [0, 0])[arm] += count

    def wire(self, rho: float) -> Share:
        return Share(
            rho,
            self.requests,
            _arms(self.exposed),
            {signal: _arms(piles) for signal, piles in self.events.items()},
            self.excluded,
        )


class _Group(msgspec.Struct):
    """Notes of one arm and probability, side by side."""

    arm: int
    into: _Open
    cells: NDArray[np.uint32]
    """Shape [n]; 0 where there is no key."""

    unkeyed: NDArray[np.bool_] | None
    """None: every request has a key."""


class Counting:
    """One rollout in one worker, since the worker began: what is told, and what is new.

    Args:
        plan: what counts.
        scramble: the rollout's odd number (`scramble_of`).
    """

    def __init__(self, plan: CountPlan, scramble: int) -> None:
        self.plan = plan
        """Of the notes to come; the batch is closed before another takes its place."""

        self._scramble = np.uint64(scramble)
        self._told: dict[str, Told] = {}
        self._exposed = (Told(), Told())
        self._copied = Told()
        self._open: dict[float, _Open] = {}
        self._shadow: dict[str, _Pile] = {}
        self._copies = 0
        self._seconds: tuple[list[float], list[float]] = ([], [])
        self._labels: set[str] = set()

    def add(self, arm: int, rho: float, notes: Sequence[Note]) -> None:
        """Count requests of one arm in the order they ended."""
        places, faults, seconds, flags, values = zip(*notes, strict=True)
        into = self._open.get(rho)
        if into is None:
            into = self._open[rho] = _Open()
        cells, unkeyed = self._cells(places)
        group = _Group(arm, into, cells, unkeyed)
        self._put(group, None, self._exposed[arm], into.exposed[arm])
        size = len(notes)
        late = np.array(seconds)
        bad = np.array([fault is not None for fault in faults]) if any(faults) else None
        error = None
        if bad is not None:
            error = np.array([fault is not None and fault.counts for fault in faults])
            into.requests[arm] += size - int((bad & ~error).sum())
            for fault in faults:
                if fault is not None and not fault.counts:
                    into.exclude(fault.reason, arm, 1)
            if error.any():
                at = np.flatnonzero(error)
                for name in self.plan.errors:
                    self._put(group, at, self._memory(name), into.pile(name, arm))
        else:
            into.requests[arm] += size
        fine = self._healthy(group, flags, bad)
        self._latency(group, late, error, fine)
        for rule in self.plan.predictions:
            self._predicted(group, rule, values, fine)
        self._sample(arm, late if bad is None else late[~bad])

    def aside(self, arm: int, rho: float, reason: str, count: int) -> None:
        """Count requests that were routed and not drawn."""
        self._open.setdefault(rho, _Open()).exclude(reason, arm, count)

    def copied(self, outcomes: Sequence[tuple[int | None, str]]) -> None:
        """Count shadow copies: place of the key and outcome; a key's first copy speaks for it."""
        self._copies += len(outcomes)
        for place, outcome in outcomes:
            if place is None:
                self._pile_of(outcome).unkeyed += 1
        keyed = [one for one in outcomes if one[0] is not None]
        if not keyed:
            return
        cells, _ = self._cells([place for place, _ in keyed])
        for at in self._copied.fresh(cells).tolist():
            self._pile_of(keyed[at][1]).cells.append(cells[at : at + 1])

    def close(self, number: int, at: float, tripped: str = "") -> Batch | None:
        """Everything since the last batch; None if nothing has happened."""
        if not self._open and not self._copies and not tripped:
            return None
        batch = Batch(
            number,
            at,
            self.plan.step,
            [one.wire(rho) for rho, one in self._open.items()],
            {outcome: pile.wire() for outcome, pile in self._shadow.items()},
            list(self._seconds),
            tripped,
            self._copies,
        )
        self._open = {}
        self._shadow = {}
        self._copies = 0
        self._seconds = ([], [])
        return batch

    # --- one signal ---------------------------------------------------------------------

    def _cells(
        self, places: Sequence[int | None]
    ) -> tuple[NDArray[np.uint32], NDArray[np.bool_] | None]:
        unkeyed = None
        if None in places:
            unkeyed = np.array([place is None for place in places])
            places = [place or 0 for place in places]
        # `cell_of`, for many: unsigned words wrap around as its modulo does.
        cells = (np.array(places, np.uint64) * self._scramble) >> np.uint64(40)
        return cells.astype(np.uint32), unkeyed

    def _memory(self, signal: str) -> Told:
        told = self._told.get(signal)
        if told is None:
            told = self._told[signal] = Told()
        return told

    def _put(self, group: _Group, at: NDArray[np.intp] | None, told: Told, pile: _Pile) -> None:
        """Count the requests at these places (None: all) as events."""
        cells = group.cells if at is None else group.cells[at]
        if group.unkeyed is not None:
            unkeyed = group.unkeyed if at is None else group.unkeyed[at]
            pile.unkeyed += int(unkeyed.sum())
            cells = cells[~unkeyed]
        fresh = told.fresh(cells)
        if len(fresh):
            pile.cells.append(cells[fresh])

    def _healthy(
        self, group: _Group, flags: Sequence[int], bad: NDArray[np.bool_] | None
    ) -> NDArray[np.bool_] | None:
        """Count features that were not fresh; which requests no default took part in."""
        if not any(flags):
            return None
        bits = np.array(flags)
        at = np.flatnonzero(bits & UNWELL)
        for name in self.plan.health:
            self._put(group, at, self._memory(name), group.into.pile(name, group.arm))
        defaulted = (bits & DEFAULTED) != 0
        if bad is not None:  # those are excluded for that, or are errors all the same
            defaulted &= ~bad
        count = int(defaulted.sum())
        if not count:
            return None
        group.into.exclude("defaulted", group.arm, count)
        return ~defaulted

    def _latency(
        self,
        group: _Group,
        seconds: NDArray[np.float64],
        error: NDArray[np.bool_] | None,
        fine: NDArray[np.bool_] | None,
    ) -> None:
        """A request is slow if it took longer, however it ended, or failed."""
        for signal, bound in self.plan.slow:
            slow = seconds > bound
            if error is not None:
                slow |= error
            if fine is not None:
                slow &= fine
            if slow.any():
                at = np.flatnonzero(slow)
                pile = group.into.pile(signal, group.arm)
                self._put(group, at, self._memory(signal), pile)

    def _predicted(
        self,
        group: _Group,
        rule: PredictionRule,
        values: Sequence[list[Any] | None],
        fine: NDArray[np.bool_] | None,
    ) -> None:
        """A key's first prediction, by its bin; requests without a key are counted one by one."""
        source = rule.source
        known = [
            at
            for at, one in enumerate(values)
            if one is not None and one[source] is not None and (fine is None or fine[at])
        ]
        if not known:
            return
        at = np.array(known)
        cells = group.cells[at]
        keyless = group.unkeyed[at] if group.unkeyed is not None else None
        keyed = at if keyless is None else at[~keyless]
        first = keyed[self._memory(rule.name).fresh(group.cells[keyed])]
        names = self._bin_names(rule)
        of_first = names([values[i][source] for i in first.tolist()])  # type: ignore[index]
        cells = group.cells[first]
        for name in dict.fromkeys(of_first):
            same = np.array([one == name for one in of_first])
            group.into.pile(name, group.arm).cells.append(cells[same])
        if keyless is not None:
            for name in names([values[i][source] for i in at[keyless].tolist()]):  # type: ignore[index]
                group.into.pile(name, group.arm).unkeyed += 1

    def _bin_names(self, rule: PredictionRule) -> Callable[[list[Any]], list[str]]:
        edges = rule.edges
        if edges is None:
            return lambda values: [f"{rule.name}:{self._label(value)}" for value in values]

        def numbers(values: list[Any]) -> list[str]:
            scores = np.array(values, np.float64)
            bins = np.searchsorted(edges, scores, side="right").tolist()
            if not np.isfinite(scores).all():
                bins = [
                    one if fine else "nan"
                    for one, fine in zip(bins, np.isfinite(scores).tolist(), strict=True)
                ]
            return [f"{rule.name}:{one}" for one in bins]

        return numbers

    def _label(self, value: Any) -> str:
        label = label_of(value)
        if label not in self._labels:
            if len(self._labels) >= _LABELS:
                return "other"
            self._labels.add(label)
        return label

    def _pile_of(self, outcome: str) -> _Pile:
        pile = self._shadow.get(outcome)
        if pile is None:
            pile = self._shadow[outcome] = _Pile()
        return pile

    def _sample(self, arm: int, seconds: NDArray[np.float64]) -> None:
        """Keep some durations, evenly over the notes."""
        room = _DURATIONS - len(self._seconds[arm])
        if room > 0 and len(seconds):
            self._seconds[arm].extend(seconds[:: -(-len(seconds) // room)].tolist())
