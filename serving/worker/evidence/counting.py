"""From ended requests to a `Batch`: every key once per signal, with numpy, many at a time. Pure.

A request leaves a note behind (`Notes`); several hundred are added up together, which costs about
half a microsecond each. Both arms are counted in one go and told apart when a batch is closed:
numpy's own cost a call is what a few hundred requests pay for.
"""

from array import array
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.rollout.wire import CELLS, Batch, Share
from serving.worker.evidence.faults import Fault
from serving.worker.evidence.notes import (
    CANARY,
    DEFAULTED,
    FAULTY,
    KEYLESS,
    PRODUCTION,
    UNWELL,
    Notes,
)
from serving.worker.evidence.rules import CountPlan, PredictionRule, label_of
from serving.worker.evidence.signals import NOBODY, Signal, Told

__all__ = ["Counting"]

_ARM: Final = 1

_LABELS: Final = 64
"""Classes told apart; more are counted together, as `other`."""

_DURATIONS: Final = 50
"""Most durations of an arm in a batch."""

_NAN: Final = -1
_Mask = NDArray[np.bool_] | None
"""None: all of them."""


class _Open:
    """What one probability has gathered since the last batch."""

    __slots__ = ("binned", "events", "excluded", "exposed", "requests")

    def __init__(self) -> None:
        self.requests = [0, 0]
        self.exposed = Signal()
        self.events: dict[str, Signal] = {}
        self.binned: dict[PredictionRule, Signal] = {}
        self.excluded: dict[str, list[int]] = {}

    def signal(self, name: str) -> Signal:
        found = self.events.get(name)
        if found is None:
            found = self.events[name] = Signal()
        return found

    def exclude(self, reason: str, arm: int, count: int) -> None:
        self.excluded.setdefault(reason, [0, 0])[arm] += count


class _Group(msgspec.Struct):
    """Notes of one probability, side by side; everything of shape [n]."""

    into: _Open
    cells: NDArray[np.uint32]
    arms: NDArray[np.uint8]
    unkeyed: _Mask
    """None: every request has a key."""


class Counting:
    """One rollout in one worker, since the worker began: what is told, and what is new.

    Args:
        plan: what counts.
        scramble: the rollout's odd number (`scramble_of`).

    Holds 2 MiB for each rule with bins and each other signal that ever had an event, and 6 MiB
    for keys that met a version or were copied; less while few keys are known.
    """

    def __init__(self, plan: CountPlan, scramble: int) -> None:
        self.plan = plan
        """Of the notes to come; the batch is closed before another takes its place."""

        self._scramble = np.uint64(scramble)
        self._told: dict[str, Told] = {}
        self._exposed = Told(2 * CELLS)
        self._copied = Told()
        self._open: dict[float, _Open] = {}
        self._shadow: dict[str, Signal] = {}
        self._copies = 0
        self._seconds: tuple[list[float], list[float]] = ([], [])
        self._labels: dict[str, int] = {}

    def add(self, rho: float, notes: Notes) -> None:
        """Count requests of one probability."""
        into = self._open.get(rho)
        if into is None:
            into = self._open[rho] = _Open()
        # Copies: an array cannot be emptied while somebody looks at its memory.
        kinds = np.array(notes.kinds)
        took = np.array(notes.seconds)
        arms = kinds & np.uint8(_ARM)
        bits = kinds if kinds.max() > _ARM else None
        group = _Group(into, self._cells(notes.places), arms, _with(bits, KEYLESS))
        self._expose(group)
        bad = _with(bits, FAULTY)
        error = self._faults(group, notes.faults, bad)
        fine = self._features(group, bits, bad)
        self._latency(group, took, error, fine)
        for rule in self.plan.predictions:
            usable = fine if bad is None else _and_not(fine, bad)
            self._predicted(group, rule, notes.values, usable)
        self._sample(arms if bad is None else arms[~bad], took if bad is None else took[~bad])

    def expose(self, rho: float, places: NDArray[np.uint64], arms: NDArray[np.uint8]) -> None:
        """Count keys that have met a version, whatever will become of their requests."""
        cells = self._cells(places)
        fresh = self._exposed.fresh(cells * np.uint32(2) + arms)
        if len(fresh):
            self._open.setdefault(rho, _Open()).exposed.add(cells[fresh], arms[fresh])

    def met(self, rho: float, canary: int, production: int) -> None:
        """Count requests without a key that were drawn."""
        counts = self._open.setdefault(rho, _Open()).exposed.unkeyed.setdefault(0, [0, 0])
        counts[CANARY] += canary
        counts[PRODUCTION] += production

    def aside(self, arm: int, rho: float, reason: str, count: int) -> None:
        """Count requests that were routed and not drawn."""
        self._open.setdefault(rho, _Open()).exclude(reason, arm, count)

    def copied(self, outcomes: Sequence[tuple[int | None, str]]) -> None:
        """Count shadow copies: place of the key and outcome; a key's first copy speaks for it."""
        self._copies += len(outcomes)
        for place, outcome in outcomes:
            if place is None:
                self._outcome(outcome).unkeyed.setdefault(0, [0, 0])[CANARY] += 1
        keyed = [(place, outcome) for place, outcome in outcomes if place is not None]
        if not keyed:
            return
        cells = self._cells(array("Q", [place for place, _ in keyed]))
        arm = np.zeros(1, np.uint8)
        for at in self._copied.fresh(cells).tolist():
            self._outcome(keyed[at][1]).add(cells[at : at + 1], arm)

    def close(self, number: int, at: float, tripped: str = "") -> Batch | None:
        """Everything since the last batch; None if nothing has happened."""
        if not self._open and not self._copies and not tripped:
            return None
        batch = Batch(
            number,
            at,
            self.plan.step,
            [self._share(rho, one) for rho, one in self._open.items()],
            {
                outcome: arms.canary
                for outcome, signal in self._shadow.items()
                for arms in signal.wire().values()
            },
            list(self._seconds),
            tripped,
            self._copies,
        )
        self._open = {}
        self._shadow = {}
        self._copies = 0
        self._seconds = ([], [])
        return batch

    def _share(self, rho: float, one: _Open) -> Share:
        events = {name: signal.wire().get(0, NOBODY) for name, signal in one.events.items()}
        labels = {code: label for label, code in self._labels.items()}
        for rule, signal in one.binned.items():
            for code, arms in signal.wire().items():
                if rule.edges is not None:
                    name = "nan" if code == _NAN else str(code)
                else:
                    name = labels.get(code, "other")
                events[f"{rule.name}:{name}"] = arms
        exposed = one.exposed.wire().get(0, NOBODY)
        return Share(rho, one.requests, exposed, events, one.excluded)

    # --- one signal ---------------------------------------------------------------------

    def _cells(self, places: "array[int] | NDArray[np.uint64]") -> NDArray[np.uint32]:
        # `cell_of`, for many: unsigned words wrap around as its modulo does.
        words = np.array(places, np.uint64)
        return ((words * self._scramble) >> np.uint64(40)).astype(np.uint32)

    def _memory(self, signal: str) -> Told:
        told = self._told.get(signal)
        if told is None:
            told = self._told[signal] = Told()
        return told

    def _expose(self, group: _Group) -> None:
        """Which key met which version for the first time. Who has none is told by `met`."""
        cells, arms, signal = group.cells, group.arms, group.into.exposed
        if group.unkeyed is not None:
            cells, arms = cells[~group.unkeyed], arms[~group.unkeyed]
        fresh = self._exposed.fresh(cells * np.uint32(2) + arms)
        if len(fresh):
            signal.add(cells[fresh], arms[fresh])

    def _events(self, group: _Group, name: str, where: NDArray[np.bool_]) -> None:
        """Count the requests where it is true as events of a signal."""
        cells, arms = group.cells[where], group.arms[where]
        if not len(cells):
            return
        signal = group.into.signal(name)
        if name in self.plan.each:
            _add_unkeyed(signal, 0, arms)
            return
        if group.unkeyed is not None:
            unkeyed = group.unkeyed[where]
            _add_unkeyed(signal, 0, arms[unkeyed])
            cells, arms = cells[~unkeyed], arms[~unkeyed]
        fresh = self._memory(name).fresh(cells)
        if len(fresh):
            signal.add(cells[fresh], arms[fresh])

    def _faults(self, group: _Group, faults: list[tuple[int, Fault]], bad: _Mask) -> _Mask:
        """Count requests that count, errors, and what is left out; which are errors."""
        into, arms = group.into, group.arms
        error = None
        if bad is not None:
            error = np.zeros(len(arms), np.bool_)
            for at, fault in faults:
                if fault.counts:
                    error[at] = True
                else:
                    into.exclude(fault.reason, int(arms[at]), 1)
            for name in self.plan.errors:
                self._events(group, name, error)
            arms = arms[~bad | error]
        production = int(arms.sum())
        into.requests[CANARY] += len(arms) - production
        into.requests[PRODUCTION] += production
        return error

    def _features(self, group: _Group, bits: NDArray[np.uint8] | None, bad: _Mask) -> _Mask:
        """Count features that were not fresh; which requests no default took part in."""
        unwell = _with(bits, UNWELL)
        if unwell is not None:
            for name in self.plan.health:
                self._events(group, name, unwell)
        defaulted = _with(bits, DEFAULTED)
        if defaulted is None:
            return None
        if bad is not None:
            defaulted = defaulted & ~bad
        for arm in (CANARY, PRODUCTION):
            count = int((defaulted & (group.arms == arm)).sum())
            if count:
                group.into.exclude("defaulted", arm, count)
        return ~defaulted

    def _latency(self, group: _Group, took: NDArray[np.float64], error: _Mask, fine: _Mask) -> None:
        """A request is slow if it took longer, however it ended, or failed."""
        if error is None and self.plan.slow:
            longest = took.max()
            if all(longest <= bound for _, bound in self.plan.slow):
                return
        for name, bound in self.plan.slow:
            slow = took > bound
            if error is not None:
                slow |= error
            if fine is not None:
                slow &= fine
            self._events(group, name, slow)

    def _predicted(
        self,
        group: _Group,
        rule: PredictionRule,
        said: list[Any],
        usable: _Mask,
    ) -> None:
        """A key's first prediction, by its bin; requests without a key are counted one by one."""
        if len(self.plan.sources) > 1:
            said = [one[rule.source] if one is not None else None for one in said]
        cells, arms, unkeyed = group.cells, group.arms, group.unkeyed
        if usable is not None or None in said:
            known = np.array([one is not None for one in said])
            at = np.flatnonzero(known if usable is None else known & usable)
            if not len(at):
                return
            said = [said[one] for one in at.tolist()]
            cells, arms = cells[at], arms[at]
            unkeyed = unkeyed[at] if unkeyed is not None else None
        signal = group.into.binned.get(rule)
        if signal is None:
            signal = group.into.binned[rule] = Signal()
        if unkeyed is not None:
            alone = np.flatnonzero(unkeyed)
            codes = self._codes(rule, [said[one] for one in alone.tolist()])
            for code, arm in zip(codes.tolist(), arms[alone].tolist(), strict=True):
                signal.unkeyed.setdefault(code, [0, 0])[arm] += 1
            keyed = np.flatnonzero(~unkeyed)
            said = [said[one] for one in keyed.tolist()]
            cells, arms = cells[keyed], arms[keyed]
        fresh = self._memory(rule.name).fresh(cells)
        if len(fresh):
            codes = self._codes(rule, [said[one] for one in fresh.tolist()])
            signal.add(cells[fresh], arms[fresh], codes)

    def _codes(self, rule: PredictionRule, values: list[Any]) -> NDArray[np.int64]:
        """The bin of each value."""
        if rule.edges is None:
            return np.array([self._label(value) for value in values], np.int64)
        try:
            scores = np.array(values, np.float64)
        except (TypeError, ValueError):  # text, say: the answer stands, whatever it is
            scores = np.full(len(values), np.nan)
        codes = np.searchsorted(rule.edges, scores, side="right")
        codes[~np.isfinite(scores)] = _NAN
        return codes

    def _label(self, value: Any) -> int:
        label = label_of(value)
        code = self._labels.get(label)
        if code is None:
            code = len(self._labels)
            if code >= _LABELS:
                return _LABELS
            self._labels[label] = code
        return code

    def _outcome(self, outcome: str) -> Signal:
        signal = self._shadow.get(outcome)
        if signal is None:
            signal = self._shadow[outcome] = Signal()
        return signal

    def _sample(self, arms: NDArray[np.uint8], took: NDArray[np.float64]) -> None:
        """Keep some durations of each arm, evenly over the notes."""
        for arm, kept in enumerate(self._seconds):
            room = _DURATIONS - len(kept)
            if room > 0:
                its = took[arms == arm]
                if len(its):
                    kept.extend(its[:: -(-len(its) // room)].tolist())


def _with(bits: NDArray[np.uint8] | None, flag: int) -> _Mask:
    """Which have a flag; None if nobody does."""
    if bits is None:
        return None
    found: NDArray[np.bool_] = (bits & flag) != 0
    return found if found.any() else None


def _and_not(mask: _Mask, out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return ~out if mask is None else mask & ~out


def _add_unkeyed(signal: Signal, code: int, arms: NDArray[np.uint8]) -> None:
    production = int(arms.sum())
    if len(arms):
        counts = signal.unkeyed.setdefault(code, [0, 0])
        counts[CANARY] += len(arms) - production
        counts[PRODUCTION] += production
