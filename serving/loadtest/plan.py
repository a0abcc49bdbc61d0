"""The whole run before it begins: when each request is due, of which kind, for which entities.

Everything random is drawn here, from the scenario's seed, so that a run can be had again and the
generator has nothing to do but send.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.errors import SluiceError
from serving.load_trace import read_trace
from serving.loadtest.arrivals import arrivals, expected, pieces, replayed, traced
from serving.loadtest.log_replay import CannotReplay, read_log
from serving.loadtest.popularity import draw
from serving.loadtest.scenario import Entity, Phase, RequestKind, Scenario

__all__ = ["MAX_REQUESTS", "KeyColumn", "Plan", "PlannedPhase", "TooLarge", "make_plan"]

MAX_REQUESTS: Final = 10_000_000
"""About half a gigabyte of plan and outcomes."""


class TooLarge(SluiceError):
    """A scenario with more requests than one run can hold."""


class PlannedPhase(msgspec.Struct, frozen=True, kw_only=True):
    """A phase in the run's time, in seconds from its start."""

    name: str
    start: float
    end: float
    warmup: bool


class KeyColumn(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of one entity tensor of one kind, row after row.

    With `table` the values are places in it (BYTES); without, they are the keys.
    """

    name: str
    datatype: str
    values: NDArray[np.int64]
    table: list[bytes] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Arrays of one element a request, in the order of `times`."""

    phases: list[PlannedPhase]
    times: NDArray[np.float64]
    """Seconds from the start of the run, ascending."""

    phase: NDArray[np.uint16]
    kind: NDArray[np.uint16]
    rows: NDArray[np.uint16]
    offset: NDArray[np.int64]
    """The request's first row in the columns of its kind."""

    columns: list[list[KeyColumn]]
    """By kind: its entity tensors; empty for a kind with a body."""


def make_plan(scenario: Scenario, folder: Path) -> Plan:
    """Draw a run; `folder` is where the scenario's paths start.

    Raises:
        TooLarge: more than `MAX_REQUESTS`.
        CannotReplay, QueryFailed, InvalidTrace: a recorded load cannot be had.
    """
    random = np.random.default_rng(scenario.seed)
    draft = _Draft(scenario, folder, random)
    for position, phase in enumerate(scenario.phases):
        draft.add(position, phase)
    return draft.finish()


class _Draft:
    def __init__(self, scenario: Scenario, folder: Path, random: np.random.Generator) -> None:
        self._scenario = scenario
        self._folder = folder
        self._random = random
        self._at = 0.0
        self._phases: list[PlannedPhase] = []
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._keys = [
            {name: _Keys(entity, folder) for name, entity in kind.entity.items()}
            for kind in scenario.requests
        ]
        self._rows = [0] * len(scenario.requests)

    def add(self, position: int, phase: Phase) -> None:
        """Put a phase after those before it."""
        if phase.log is not None:
            times, kind, rows, offset = self._from_log(phase)
            length = float(phase.length) if phase.length else _end(times)
        else:
            times, length = self._made(phase)
            kind, rows, offset = self._mix(len(times))
        keep = times < length
        start, self._at = self._at, self._at + length
        place = np.full(int(keep.sum()), position, np.uint16)
        self._parts.append((times[keep] + start, place, kind[keep], rows[keep], offset[keep]))
        self._phases.append(
            PlannedPhase(name=phase.name, start=start, end=self._at, warmup=phase.warmup)
        )

    def finish(self) -> Plan:
        """Everything in one piece."""
        times, phase, kind, rows, offset = (
            np.concatenate(part) for part in zip(*self._parts, strict=True)
        )
        return Plan(
            phases=self._phases,
            times=times,
            phase=phase,
            kind=kind.astype(np.uint16),
            rows=rows.astype(np.uint16),
            offset=offset.astype(np.int64),
            columns=[[one.column(name) for name, one in keys.items()] for keys in self._keys],
        )

    def _made(self, phase: Phase) -> tuple[NDArray[np.float64], float]:
        if phase.trace is not None:
            trace = phase.trace
            length = float(phase.length) if phase.length else None
            recorded = read_trace(self._folder / trace.file)
            rate = traced(recorded, scale=trace.scale, speed=trace.speed, length=length)
        else:
            rate = pieces(phase)
        many = expected(rate) + sum(len(part[0]) for part in self._parts)
        if many > MAX_REQUESTS:
            raise TooLarge(
                f"phase `{phase.name}` brings the run to {many:,.0f} requests; {MAX_REQUESTS:,} "
                "are the most one run can hold: make it shorter or its rate lower"
            )
        random = self._random if phase.arrivals == "poisson" else None
        return arrivals(rate, random=random), rate[-1].end

    def _mix(self, count: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        kinds = self._scenario.requests
        weights = np.array([kind.weight for kind in kinds])
        kind = self._random.choice(len(kinds), size=count, p=weights / weights.sum())
        rows, offset = np.ones(count, np.int64), np.zeros(count, np.int64)
        for number, one in enumerate(kinds):
            mine = kind == number
            if one.entity:
                rows[mine] = self._random.choice(one.rows, size=int(mine.sum()))
                self._draw_keys(number, int(rows[mine].sum()))
                offset[mine] = self._place(number, rows[mine])
        return kind, rows, offset

    def _draw_keys(self, number: int, count: int) -> None:
        for keys in self._keys[number].values():
            keys.draw(count, self._random)

    def _place(self, number: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        ends = np.cumsum(rows) + self._rows[number]
        self._rows[number] += int(rows.sum())
        found: NDArray[np.int64] = ends - rows
        return found

    def _from_log(self, phase: Phase) -> tuple[NDArray[Any], ...]:
        replay = phase.log
        assert replay is not None
        number = _kind_of(self._scenario.requests, replay.model)
        keys = self._keys[number]
        found = read_log(self._folder / replay.folder, replay, list(keys))
        times, index = replayed(found.times, scale=replay.scale, speed=replay.speed)
        kind = np.full(len(times), number, np.int64)
        if not keys:
            return times, kind, np.ones(len(times), np.int64), np.zeros(len(times), np.int64)
        offset = found.first[index] + self._rows[number]
        for name, one in keys.items():
            one.take(name, found.keys[name])
        self._rows[number] += len(next(iter(found.keys.values())))
        return times, kind, found.rows[index], offset


def _end(times: NDArray[np.float64]) -> float:
    """A little after the last request, so that it is in the phase."""
    return float(times[-1]) + 1e-6 if len(times) else 0.0


def _kind_of(kinds: list[RequestKind], model: str) -> int:
    """The first kind of a model, one that can carry entities before one that cannot."""
    found = [number for number, kind in enumerate(kinds) if kind.model == model]
    return next((number for number in found if kinds[number].entity), found[0])


class _Keys:
    """The keys of one entity tensor while they are drawn."""

    def __init__(self, entity: Entity, folder: Path) -> None:
        self._entity = entity
        self._text = entity.datatype == "BYTES"
        self._table: list[bytes] = []
        self._numbers: NDArray[np.int64] | None = None
        self._parts: list[NDArray[np.int64]] = []
        if entity.file:
            lines = [line.strip() for line in (folder / entity.file).read_bytes().splitlines()]
            lines = [line for line in lines if line]
            if not lines:
                raise CannotReplay(f"{entity.file} has no keys")
            if self._text:
                self._table = lines
            else:
                self._numbers = _whole_numbers(lines, entity.file)

    def draw(self, count: int, random: np.random.Generator) -> None:
        entity = self._entity
        if self._numbers is not None:
            known = len(self._numbers)
        else:
            known = len(self._table) if entity.file else entity.keys
        drawn = draw(count, known, exponent=entity.zipf, random=random)
        if self._numbers is not None:
            drawn = self._numbers[drawn]
        elif not entity.file:
            drawn = drawn + entity.first
            if self._text:
                self.take("", [str(number) for number in drawn.tolist()])
                return
        self._parts.append(drawn)

    def take(self, name: str, values: list[Any]) -> None:
        """Add keys of a log."""
        if self._text:
            base = len(self._table)
            self._table += [str(value).encode() for value in values]
            self._parts.append(np.arange(base, len(self._table)))
            return
        if not all(isinstance(value, int) for value in values):
            raise CannotReplay(f"the log keeps `{name}` hashed or as text; replay needs the keys")
        self._parts.append(np.array(values, np.int64))

    def column(self, name: str) -> KeyColumn:
        values = np.concatenate(self._parts) if self._parts else np.empty(0, np.int64)
        return KeyColumn(
            name=name, datatype=self._entity.datatype, values=values, table=self._table
        )


def _whole_numbers(lines: list[bytes], file: str) -> NDArray[np.int64]:
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(int(line))
        except ValueError:
            raise CannotReplay(f"{file}: key {number} is no whole number") from None
    return np.array(found, np.int64)
