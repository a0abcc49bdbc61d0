"""How many workers a load wants: one pure function, for the Ray engine and for `simulate`.

The busy fraction says how many are needed as long as it is below one; a worker that is always
busy says nothing about how much is waiting, so requests in flight have a say too. Going up waits
until the wish has held for `upscale_delay`; going down goes to the *highest* wish of the last
`downscale_delay` seconds, so a load that comes in waves keeps the workers that its crests need.
Between the two lies a tolerance in which nothing changes. (The shape is that of Kubernetes'
HorizontalPodAutoscaler: a ratio to a target, a tolerance, a stabilization window.)
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["AVERAGED_SECONDS", "REPORT_SECONDS", "Load", "Scaling", "decide", "wanted"]

REPORT_SECONDS: Final = 1.0
"""How often a worker reports its load."""

AVERAGED_SECONDS: Final = 5.0
"""The time over which what `decide` is given is averaged."""

_TOLERANCE: Final = 0.1
_SLOT_SECONDS: Final = 1.0


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """What `engine.workers` asks for, or `serve.hosts`, which may be none. Delays in seconds."""

    min: int = 1
    max: int = 1
    target_busy: float = 0.6
    target_in_flight: float = 32.0
    upscale_delay: float = 2.0
    downscale_delay: float = 60.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers that run report, summed over them.

    `busy` is cores' worth of CPU time (a worker that is busy all the time adds one),
    `in_flight` requests that have no answer yet.
    """

    busy: float
    in_flight: float = 0.0


def wanted(load: Load, scaling: Scaling, current: int) -> int:
    """How many workers this load asks for now, within the bounds; `current` if about as many."""
    if scaling.min == 0 and load.in_flight == 0:
        return 0  # a process that waits uses some CPU too, and is not needed for it
    per_busy = load.busy / scaling.target_busy
    per_flight = load.in_flight / scaling.target_in_flight
    need = max(per_busy, per_flight)
    near = current * (1 - _TOLERANCE) <= need <= current * (1 + _TOLERANCE)
    # Fewer only if they would not at once be as busy as would have it go up again.
    roomy = need / (1 - _TOLERANCE)
    if near:
        number = current
    elif need > current:
        number = math.ceil(need)
    else:
        number = min(current, math.ceil(roomy))
    return min(max(number, scaling.min), scaling.max)


def decide(
    load: Load, scaling: Scaling, current: int, now: float, memory: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """How many workers to run, and what to remember for the next call.

    Args:
        load: summed over the workers, averaged over `AVERAGED_SECONDS`.
        scaling: bounds, targets and delays.
        current: how many are meant to run now.
        now: monotonic or wall-clock seconds.
        memory: what the call before returned; empty at first. Plain JSON values.
    """
    wish = wanted(load, scaling, current)
    slot = int(now / _SLOT_SECONDS)
    wishes: dict[str, int] = {
        key: value
        for key, value in memory.get("wishes", {}).items()
        if now - int(key) * _SLOT_SECONDS <= scaling.downscale_delay + _SLOT_SECONDS
    }
    wishes[str(slot)] = max(wish, wishes.get(str(slot), 0))
    since: float | None = memory.get("more_since") if wish > current else None
    if wish > current and since is None:
        since = now
    started = float(memory.get("started", now))
    number = current
    # Where there is none, somebody waits for the first.
    delay = scaling.upscale_delay if current else 0.0
    if since is not None and now - since >= delay:
        number, since = wish, None
    elif wish < current and now - started >= scaling.downscale_delay:
        number = min(current, max(wishes.values()))
    number = min(max(number, scaling.min), scaling.max)
    return number, {"wishes": wishes, "more_since": since, "started": started}
