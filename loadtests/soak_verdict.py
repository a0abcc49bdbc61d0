"""What the soak test's samples say: growth of each process since it was warm, and leaks. Pure."""

import statistics
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from soak_memory import Held

__all__ = ["Growth", "Leak", "Sample", "growths", "leaks", "lost"]

SETTLED: Final = 3
"""Samples whose median is compared, at the end of the warm-up and at the end."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """All processes after one round. Numbers are of all rounds so far, warm-up included."""

    phase: Literal["warm-up", "plain", "busy"]
    seconds: float
    requests: int
    changes: int
    loads: int
    held: dict[str, Held]
    """By process."""


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """Resident memory of one process, in bytes: when it was warm, and at the end."""

    process: str
    warm: int
    end: int

    @property
    def share(self) -> float:
        """By what share of the warm size it has grown."""
        return self.end / self.warm - 1


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """What one process still holds of each request and of each change (or load) after it.

    Blocks are Python's, bytes those of the C heap; both in use, not merely kept for later.
    """

    process: str
    blocks_per_request: float
    bytes_per_request: float
    blocks_per_change: float
    bytes_per_change: float


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Of every process that was there all the time. Needs a sample of each kind."""
    warm = [one for one in samples if one.phase == "warm-up"][-SETTLED:]
    end = [one for one in samples if one.phase != "warm-up"][-SETTLED:]
    names = [name for name in warm[0].held if all(name in one.held for one in [*warm, *end])]
    return [
        Growth(
            process=name,
            warm=int(statistics.median(one.held[name].rss for one in warm)),
            end=int(statistics.median(one.held[name].rss for one in end)),
        )
        for name in names
    ]


def lost(samples: Sequence[Sample]) -> list[str]:
    """Names of processes that were not the same all the time: ended, or started anew."""
    return [
        name
        for name, first in samples[0].held.items()
        if any(name not in one.held or one.held[name].pid != first.pid for one in samples)
    ]


def leaks(samples: Sequence[Sample]) -> list[Leak]:
    """Of every process with a probe, from the differences between one sample and the next.

    Rounds without changes (`plain`) say what a request leaves behind; what rounds with changes
    (`busy`) leave beyond that is the changes'.
    """
    at = next(index for index, one in enumerate(samples) if one.phase != "warm-up")
    pairs = list(zip(samples[at - 1 :], samples[at:], strict=False))
    plain = [pair for pair in pairs if pair[1].phase == "plain"]
    busy = [pair for pair in pairs if pair[1].phase == "busy"]
    found = []
    for name, first in samples[at].held.items():
        if not first.blocks or not all(name in one.held for one in samples[at - 1 :]):
            continue
        per_request = [_rate(plain, name, what) for what in ("blocks", "heap")]
        per_change = [
            _beyond(busy, name, what, each)
            for what, each in zip(("blocks", "heap"), per_request, strict=True)
        ]
        found.append(
            Leak(
                process=name,
                blocks_per_request=per_request[0],
                bytes_per_request=per_request[1],
                blocks_per_change=per_change[0],
                bytes_per_change=per_change[1],
            )
        )
    return found


Pairs = Sequence[tuple[Sample, Sample]]


def _grown(pairs: Pairs, name: str, what: str) -> int:
    return sum(getattr(b.held[name], what) - getattr(a.held[name], what) for a, b in pairs)


def _rate(pairs: Pairs, name: str, what: str) -> float:
    requests = sum(b.requests - a.requests for a, b in pairs)
    return _grown(pairs, name, what) / requests if requests else 0.0


def _beyond(pairs: Pairs, name: str, what: str, per_request: float) -> float:
    requests = sum(b.requests - a.requests for a, b in pairs)
    changes = sum(b.changes + b.loads - a.changes - a.loads for a, b in pairs)
    return (_grown(pairs, name, what) - per_request * requests) / changes if changes else 0.0
