"""A load over time: read from a file, or one of a few shapes.

For `sluice simulate` and `sluice loadtest`.

Two kinds of file are read: a table with a header (`.csv`), and what Prometheus answers to
`/api/v1/query_range` (`.json`; several series are added up), so that a recorded load can be
replayed: `sum(rate(sluice_requests_total[1m]))`.
"""

import csv
import math
import random
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from serving.errors import SluiceError

__all__ = ["SHAPES", "InvalidTrace", "LoadTrace", "Point", "read_trace", "shape"]

SHAPES: Final[dict[str, str]] = {
    "steady": "low, then peak from a tenth of the time on",
    "steps": "five steps up to peak, and down again",
    "spike": "low, with peak for a tenth of the time",
    "waves": "ten waves between low and peak",
    "noise": "around the middle of low and peak, each second at random between them",
    "day": "one slow wave from low to peak and back",
}
"""Synthetic loads, with what they look like."""

_MOST_POINTS: Final = 1_000_000


class InvalidTrace(SluiceError):
    """A load that cannot be replayed."""


class Point(msgspec.Struct, frozen=True):
    """From `at` seconds on, `rate` requests arrive each second."""

    at: float
    rate: float


class LoadTrace(msgspec.Struct, frozen=True):
    """A load that changes at its points and ends after `seconds`. Points ascend from 0."""

    points: tuple[Point, ...]
    seconds: float

    @property
    def peak(self) -> float:
        """The highest rate, in requests a second."""
        return max(point.rate for point in self.points)

    @property
    def requests(self) -> float:
        """How many requests arrive in all."""
        ends = [*(point.at for point in self.points[1:]), self.seconds]
        return sum(
            point.rate * (end - point.at) for point, end in zip(self.points, ends, strict=True)
        )

    def rates(self, step: float) -> Iterable[float]:
        """The rate at 0, `step`, 2 `step`… seconds."""
        at, index = 0.0, 0
        while at < self.seconds:
            while index + 1 < len(self.points) and self.points[index + 1].at <= at:
                index += 1
            yield self.points[index].rate
            at += step


def shape(name: str, *, low: float, peak: float, seconds: float, seed: int = 1) -> LoadTrace:
    """A synthetic load, one point a second: one of `SHAPES`, between `low` and `peak`."""
    chance = random.Random(seed)  # noqa: S311 - a load, not a secret
    length = max(1, round(seconds))

    def rate(second: int) -> float:
        part = second / length
        match name:
            case "steady":
                share = 1.0 if part >= 0.1 else 0.0
            case "steps":
                share = math.ceil(5 * (1 - abs(2 * part - 1))) / 5
            case "spike":
                share = 1.0 if 0.4 <= part < 0.5 else 0.0
            case "waves":
                share = (1 - math.cos(2 * math.pi * part * 10)) / 2
            case "noise":
                share = chance.random()
            case "day":
                share = (1 - math.cos(2 * math.pi * part)) / 2
            case _:
                raise InvalidTrace(f"no shape `{name}`; there is {', '.join(SHAPES)}")
        return low + (peak - low) * share

    return LoadTrace(tuple(Point(float(at), rate(at)) for at in range(length)), float(length))


def read_trace(path: Path) -> LoadTrace:
    """A recorded load: columns `seconds` and `rps`, or Prometheus's answer to a range query.

    Raises:
        InvalidTrace: There is no such file, or it is something else; names line and column.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InvalidTrace(f"{path}: {reason}") from error
    try:
        pairs = _from_prometheus(content) if content.lstrip()[:1] == "{" else _from_csv(content)
        return _trace(pairs)
    except InvalidTrace as error:
        raise InvalidTrace(f"{path}: {error.message}") from error


def _from_csv(content: str) -> list[tuple[float, float]]:
    lines = csv.reader(content.splitlines())
    header = [name.strip().lower() for name in next(lines, [])]
    if not {"seconds", "rps"} <= set(header):
        raise InvalidTrace(
            f"expected a header with the columns `seconds` and `rps`, found "
            f"{', '.join(header) or 'nothing'}"
        )
    columns = [header.index("seconds"), header.index("rps")]
    pairs: list[tuple[float, float]] = []
    for line in lines:
        if not line:
            continue
        if len(pairs) >= _MOST_POINTS:
            raise InvalidTrace(f"more than {_MOST_POINTS:,} points")
        try:
            at, rate = (float(line[column]) for column in columns)
        except (ValueError, IndexError):
            raise InvalidTrace(f"line {lines.line_num}: expected numbers, found {line}") from None
        pairs.append((at, rate))
    return pairs


def _from_prometheus(content: str) -> list[tuple[float, float]]:
    try:
        answer: dict[str, Any] = msgspec.json.decode(content)
        series = [one["values"] for one in answer["data"]["result"]]
        sums: dict[float, float] = {}
        for values in series:
            for at, text in values:
                rate = float(text)  # Prometheus writes values as text, NaN for "none"
                sums[float(at)] = sums.get(float(at), 0.0) + (0.0 if math.isnan(rate) else rate)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidTrace(
            "expected what Prometheus answers to /api/v1/query_range: "
            '{"data": {"result": [{"values": [[time, "value"], …]}, …]}}'
        ) from error
    return sorted(sums.items())


def _trace(pairs: list[tuple[float, float]]) -> LoadTrace:
    if not pairs:
        raise InvalidTrace("no points")
    for number, (at, rate) in enumerate(pairs, 1):
        if not (math.isfinite(at) and math.isfinite(rate)) or rate < 0:
            raise InvalidTrace(f"point {number}: {at:g} seconds, {rate:g} requests a second")
    for number, ((before, _), (at, _)) in enumerate(pairwise(pairs), 2):
        if at <= before:
            raise InvalidTrace(f"point {number}: {at:g} seconds is not after {before:g}")
    start = pairs[0][0]
    points = tuple(Point(at - start, rate) for at, rate in pairs)
    # The last point holds as long as the one before it did.
    last = points[-1].at - points[-2].at if len(points) > 1 else 1.0
    return LoadTrace(points, points[-1].at + last)
