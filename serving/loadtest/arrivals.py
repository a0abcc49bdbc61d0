"""When requests are to be sent: a rate over time to points in time. Pure and seeded.

The rate is piecewise linear, so the expected number of requests up to a time is a parabola in each
piece and can be inverted exactly. A Poisson process of that rate is the image of one of rate 1
under the inverse (the time-change theorem; Daley and Vere-Jones, An Introduction to the Theory of
Point Processes, 7.4), evenly spaced arrivals the image of 0, 1, 2 …
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.load_trace import LoadTrace
from serving.loadtest.scenario import Phase, Spike, Steps

__all__ = ["Piece", "arrivals", "expected", "pieces", "replayed", "traced"]

_Times = NDArray[np.float64]


class Piece(msgspec.Struct, frozen=True):
    """From `start` to `end` seconds the rate goes evenly from `low` to `high` requests a second."""

    start: float
    end: float
    low: float
    high: float


def pieces(phase: Phase) -> list[Piece]:
    """The rate of a phase that is not a recorded one; times from its start."""
    assert phase.length is not None
    length = float(phase.length)
    if phase.rate is not None:
        return [Piece(0.0, length, phase.rate, phase.rate)]
    if phase.ramp is not None:
        return [Piece(0.0, length, phase.ramp.start, phase.ramp.to)]
    if phase.steps is not None:
        return _stairs(phase.steps, length)
    assert phase.spike is not None
    return _jump(phase.spike, length)


def traced(trace: LoadTrace, *, scale: float, speed: float, length: float | None) -> list[Piece]:
    """A recorded load, its rates times `scale`, `speed` times as fast, cut off after `length`."""
    ends = [*(point.at for point in trace.points[1:]), trace.seconds]
    found = [
        Piece(point.at / speed, end / speed, point.rate * scale, point.rate * scale)
        for point, end in zip(trace.points, ends, strict=True)
    ]
    if length is None:
        return found
    return [
        msgspec.structs.replace(piece, end=min(piece.end, length))
        for piece in found
        if piece.start < length
    ]


def expected(rate: Sequence[Piece]) -> float:
    """How many requests a rate makes."""
    return sum((piece.end - piece.start) * (piece.low + piece.high) / 2 for piece in rate)


def arrivals(rate: Sequence[Piece], *, random: np.random.Generator | None) -> _Times:
    """Times in ascending order: a Poisson process, or evenly spaced ones without `random`."""
    whole = expected(rate)
    if random is None:
        return _invert(rate, np.arange(0.0, whole))
    marks: list[_Times] = []
    last = 0.0
    while last < whole:
        # Most often one draw is enough: six standard deviations more than expected.
        left = whole - last
        steps = random.exponential(size=int(left + 6 * left**0.5) + 16)
        marks.append(last + np.cumsum(steps))
        last = float(marks[-1][-1])
    every = np.concatenate(marks) if marks else np.empty(0)
    return _invert(rate, every[every < whole])


def replayed(times: _Times, *, scale: float, speed: float) -> tuple[_Times, NDArray[np.int64]]:
    """Recorded times, from the first one, `scale` times as many and `speed` times as fast.

    Returns:
        The times, and for each the recorded request it stands for. More than one for each are
        spread evenly up to the next, so that no clumps are made that were not there.
    """
    count = len(times)
    place = np.arange(int(count * scale)) / scale
    index = np.minimum(place.astype(np.int64), count - 1)
    found = np.interp(place, np.arange(count), times - times[0]) if count else np.empty(0)
    return found / speed, index


def _invert(rate: Sequence[Piece], marks: _Times) -> _Times:
    """The times at which the expected number of requests reaches each mark."""
    starts = np.array([piece.start for piece in rate])
    spans = np.array([piece.end - piece.start for piece in rate])
    low = np.array([piece.low for piece in rate])
    slope = (np.array([piece.high for piece in rate]) - low) / np.maximum(spans, _TINY)
    areas = spans * (low + slope * spans / 2)
    before = np.concatenate(([0.0], np.cumsum(areas)))
    at = np.clip(np.searchsorted(before, marks, side="right") - 1, 0, len(rate) - 1)
    rest = marks - before[at]
    # low·t + slope·t²/2 = rest, in the form that also holds for a slope of 0.
    root = np.sqrt(np.maximum(low[at] ** 2 + 2 * slope[at] * rest, 0.0))
    times: _Times = starts[at] + 2 * rest / np.maximum(low[at] + root, _TINY)
    return times


_TINY: Final = 1e-12


def _stairs(steps: Steps, length: float) -> list[Piece]:
    rates = np.linspace(steps.start, steps.to, steps.count)
    edges = np.linspace(0.0, length, steps.count + 1)
    return [
        Piece(float(edges[i]), float(edges[i + 1]), float(rate), float(rate))
        for i, rate in enumerate(rates)
    ]


def _jump(spike: Spike, length: float) -> list[Piece]:
    up, down = float(spike.at), float(spike.at + spike.lasts)
    edges = ((0.0, up, spike.base), (up, down, spike.peak), (down, length, spike.base))
    return [Piece(start, end, rate, rate) for start, end, rate in edges if end > start]
