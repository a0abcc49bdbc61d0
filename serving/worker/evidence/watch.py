"""What a request does for the evidence of a rollout: take a slot, give it back, leave a note.

This is on every request's way, so it does the least that can be done there; the rest is
`Counting`'s, many requests at a time.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from numpy.typing import NDArray

from feature_cache.assembly import Batch as FeatureBatch
from feature_cache.status import Status
from serving.config.schema import ModelConfig
from serving.config.snapshot import RolloutTraffic
from serving.rollout.wire import Batch, scramble_of
from serving.traffic.table import Decision
from serving.upstream import Inference
from serving.worker.evidence.counting import Counting
from serving.worker.evidence.faults import Fault
from serving.worker.evidence.hard_stop import HardStop
from serving.worker.evidence.in_flight import SUFFIX, InFlight, Owner, Word
from serving.worker.evidence.notes import (
    CANARY,
    DEFAULTED,
    FAULTY,
    KEYLESS,
    PRODUCTION,
    UNWELL,
    Notes,
)
from serving.worker.evidence.rules import compile_plan
from serving.worker.join import Joined

__all__ = ["HARD_STOP", "Ticket", "Watch", "Way"]

HARD_STOP: Final = "hard_stop"
_AT_ONCE: Final = 512
"""So many requests are added up together at the latest: about a third of a millisecond."""

_WAYS: Final = 256
_FRESH: Final = frozenset({0, int(Status.OK), int(Status.OK | Status.CACHED)})
_DEFAULTED: Final = int(Status.DEFAULTED)
_NOTED: Final = int(Word.NOTED)
_ASIDE: Final = {"version": "asked_for", "override": "overridden", "only": "no_canary"}


class Way(msgspec.Struct, eq=False):
    """How requests of one decision count."""

    decision: Decision
    arm: int
    rho: float
    notes: Notes
    """Of this probability, waiting to be added up."""

    drawn: bool
    counts: bool
    keyed: int
    """What stands in the slot of a request in flight; 0 if it would not count."""

    unkeyed: int
    reason: str = ""
    """Why its requests are left out."""

    aside: int = 0


Ticket = tuple[int, Way, int | None]
"""A slot, whose way, and the place of the key."""


class Watch:
    """One rollout in this worker, as long as both last; it outlives tables.

    Args:
        model: the model as its file has it.
        rollout: what control says.
        folder: where the file of requests in flight is kept.
        owner: of that file.
        slots: most requests that can be in flight.
        urgent: called when control should hear of something at once.
    """

    def __init__(
        self,
        model: ModelConfig,
        rollout: RolloutTraffic,
        *,
        folder: Path,
        owner: Owner,
        slots: int,
        urgent: Callable[[], None] = lambda: None,
    ) -> None:
        plan = compile_plan(model, rollout)
        self.id = rollout.id
        self.rollout = rollout
        self.owner = msgspec.structs.replace(owner, signals=plan.failing, step=plan.step)
        self.counting = Counting(plan, scramble_of(rollout.id))
        name = f"{rollout.id}~{owner.incarnation.replace('/', '~').replace(':', '~')}{SUFFIX}"
        self.flight = InFlight(folder / name, self.owner, slots)
        self._words = self.flight.words
        self._free = self.flight.free
        self._urgent = urgent
        self._stop = HardStop(plan.stops, rollout.weight / 100)
        self.stopped = False
        """Whether this worker gives the canary no more requests."""

        self._told_of_stop = False
        self._ways: dict[int, Way] = {}
        self._aside: list[Way] = []
        self._notes: dict[float, Notes] = {}
        self._copies: list[tuple[int | None, str]] = []
        self._reads = bool(plan.sources)
        self._names: tuple[str, ...] = ()
        self._spots: list[tuple[int, int]] = []
        self._spot, self._column = -1, 0
        """Of the only output that is looked at, among `_names`; -1: there are several, or none."""

        self._instead: dict[tuple[str, ...], Decision] = {}

    def follow(self, model: ModelConfig, rollout: RolloutTraffic) -> None:
        """Count by what control says now. A higher revision lifts a hard stop."""
        self.settle()
        if rollout.revision > self.rollout.revision:
            self._stop = HardStop(compile_plan(model, rollout).stops, rollout.weight / 100)
            self.stopped = self._told_of_stop = False
        self.rollout = rollout
        plan = self.counting.plan = compile_plan(model, rollout)
        self.owner = msgspec.structs.replace(self.owner, signals=plan.failing, step=plan.step)
        self.flight.describe(self.owner)
        self._reads = bool(plan.sources)
        self._names, self._spots, self._spot = (), [], -1
        self._ways.clear()  # decisions belong to a table
        self._instead.clear()

    # --- on the request's way -----------------------------------------------------------

    def around(self, decision: Decision) -> Decision:
        """Give production what was drawn for a canary that has been stopped."""
        if decision.role != "canary" or decision.reason not in ("assigned", "random"):
            return decision
        instead = self._instead.get(decision.mirrors)
        if instead is None:
            instead = self._instead[decision.mirrors] = Decision(
                version=self.rollout.production,
                role="production",
                probability=0.0,
                reason=HARD_STOP,
                mirrors=decision.mirrors,
            )
        return instead

    def enter(self, decision: Decision, place: int | None) -> Ticket | None:
        """Take a slot for a request that was just routed; None if it is none of ours."""
        way = self._ways.get(id(decision)) or self._learn(decision)
        if not way.drawn:
            if way.reason:
                self._set_aside(way)
            return None
        free = self._free
        if not free:
            return None
        slot = free.pop()
        words = self._words
        if place is None:
            words[slot] = 0
            words[slot + 1] = way.unkeyed
            way.notes.met[way.arm] += way.counts
        else:
            words[slot] = place
            words[slot + 1] = way.keyed
        return slot, way, place

    def answered(
        self, ticket: Ticket, seconds: float, now: float, joined: Joined, inference: Inference
    ) -> None:
        """Give the slot back: the request was answered.

        Args:
            ticket: from `enter`.
            seconds: since its first byte.
            now: monotonic.
            joined: what the model was given.
            inference: what it said.
        """
        slot, way, place = ticket
        words = self._words
        if way.counts:
            batch = joined.batch
            kind = way.arm if batch is None or batch.fine else way.arm | _flags(batch)
            if place is None:
                place, kind = 0, kind | KEYLESS
            notes = way.notes
            if self._reads:
                if joined.outputs is not self._names:
                    self._look(joined.outputs)
                spot = self._spot
                if spot >= 0:  # inlined: this is on every request's way
                    try:
                        notes.value(inference.outputs[spot].item(self._column))
                    except (IndexError, ValueError):  # fewer columns than the rule reads
                        notes.value(None)
                else:
                    notes.value(self._several(inference.outputs))
            notes.place(place)
            notes.took(seconds)
            kinds = notes.kinds
            kinds.append(kind)
            words[_NOTED] += 1
            if len(kinds) >= _AT_ONCE:
                self.settle()
        words[slot + 1] = 0
        self._free.append(slot)
        if way.arm == CANARY:
            self._stop.ended(now, failed=False, place=place)
        else:
            self._stop.production_requests += 1

    def failed(self, ticket: Ticket, fault: Fault, seconds: float, now: float) -> None:
        """Give the slot back: the request was not answered by the version it was drawn for."""
        slot, way, place = ticket
        if way.counts:
            notes = way.notes
            notes.faults.append((len(notes.kinds), fault))
            if self._reads:
                notes.value(None)
            notes.place(place or 0)
            notes.took(seconds)
            kind = way.arm | FAULTY | (UNWELL if fault.unwell else 0)
            notes.kinds.append(kind | (KEYLESS if place is None else 0))
            self._words[_NOTED] += 1
            if len(notes.kinds) >= _AT_ONCE:
                self.settle()
        self._words[slot + 1] = 0
        self._free.append(slot)
        if not fault.counts:
            return
        if way.arm != CANARY:
            self._stop.production_requests += 1
            self._stop.production_failed(now, place)
        elif self._stop.ended(now, failed=True, place=place):
            self.stopped = True
            self._urgent()

    def copies_to(self, version: str) -> bool:
        """Whether the outcome of a copy for this version is evidence."""
        return version == self.rollout.canary

    @property
    def within(self) -> float:
        """By how much a copy's numbers may differ and still say the same."""
        return self.counting.plan.within

    def copied(self, place: int | None, outcome: str) -> None:
        """Take down a shadow copy: `agree`, `differ`, `failed`, `production_failed`."""
        self._copies.append((place, outcome))

    # --- from time to time --------------------------------------------------------------

    def settle(self) -> None:
        """Add up what has ended."""
        for way in self._aside:
            self.counting.aside(way.arm, way.rho, way.reason, way.aside)
            way.aside = 0
        self._aside.clear()
        for rho, notes in self._notes.items():
            if len(notes):
                self.counting.add(rho, notes)
                notes.clear()
            if notes.met != [0, 0]:
                self.counting.met(rho, *notes.met)
                notes.met = [0, 0]
        if self._copies:
            copies, self._copies = self._copies, []
            self.counting.copied(copies)

    def close_batch(self, number: int, at: float) -> Batch | None:
        """Everything since the last batch, and for once why the canary is stopped."""
        self.settle()
        # Who was drawn for a version has met it, however long it takes to answer: shares that
        # looked only at answers would blame the draw for a version that hangs.
        for rho, (places, arms) in self.flight.keyed().items():
            self.counting.expose(rho, places, arms)
        news = "" if self._told_of_stop else self._stop.tripped
        self._told_of_stop = self.stopped
        return self.counting.close(number, at, news)

    def _learn(self, decision: Decision) -> Way:
        """Find out how requests of a decision count; there are few decisions."""
        rollout = self.rollout
        canary = decision.version == rollout.canary
        lots = decision.reason in ("assigned", "random") or decision.analysed
        drawn = lots and decision.role in ("canary", "production")
        # The configured share, and not `probability`: both arms must have it to the last bit.
        rho = rollout.weight / 100
        between = 0.0 < rho < 1.0
        counts = drawn and 0.0 < decision.probability < 1.0 and between
        reason = "" if drawn else str(_ASIDE.get(decision.reason, decision.reason))
        if not between or decision.version not in (rollout.canary, rollout.production):
            reason = ""
        arm = CANARY if canary else PRODUCTION
        way = Way(
            decision=decision,
            arm=arm,
            rho=rho,
            notes=self._notes.setdefault(rho, Notes()),
            drawn=drawn and (counts or canary),
            counts=counts,
            keyed=self.flight.code(rho, arm, keyed=True) if counts else 0,
            unkeyed=self.flight.code(rho, arm, keyed=False) if counts else 0,
            reason=reason,
        )
        if len(self._ways) >= _WAYS:  # asked for by name: each has a decision of its own
            self._ways.clear()
        # Holds the decision too: an id is only its own while it lives.
        self._ways[id(decision)] = way
        return way

    def _set_aside(self, way: Way) -> None:
        if not way.aside:
            self._aside.append(way)
        way.aside += 1

    def _look(self, names: tuple[str, ...]) -> None:
        """Find out where among these outputs are those that rules look at."""
        self._names = names
        self._spots = [
            (names.index(name) if name in names else -1, column)
            for name, column in self.counting.plan.sources
        ]
        self._spot, self._column = self._spots[0] if len(self._spots) == 1 else (-1, 0)

    def _several(self, outputs: Sequence[NDArray[Any]]) -> list[Any] | None:
        """What rules look at, of the first row as the key is, if that is not one output."""
        if len(self._spots) == 1:
            return None  # the only one, and the caller did not ask for it
        try:
            return [outputs[at].item(column) if at >= 0 else None for at, column in self._spots]
        except (IndexError, ValueError):
            return None


def _flags(batch: FeatureBatch) -> int:
    """What a request's features were like."""
    every = 0
    well = True
    for bits in batch.bits:
        for bit in bits:
            every |= bit
            if bit not in _FRESH:
                well = False
    return (0 if well else UNWELL) | (DEFAULTED if every & _DEFAULTED else 0)
