"""What a scaling policy would have done with a load: `decide` run over a trace, on a model.

The model of a gateway: each worker has one core and answers one request after the other;
connections spread requests evenly; what cannot be answered at once waits, and what would wait
longer than the deadline is refused at once (the worker does the same). Workers that are added
serve after `start_seconds`; those that are taken away stop at once.

Latency is an estimate for requests of equal work that arrive at random: the mean wait of an
M/D/1 queue, rho * s / (2 (1 - rho)) (Pollaczek and Khinchine), and, from its exponential tail
exp(-2 (1 - rho) t / s), the 99th percentile; the backlog's own wait comes on top.
"""

import math
from collections import deque
from itertools import pairwise
from typing import Any, Final

import msgspec

from serving.engine.autoscale import AVERAGED_SECONDS, REPORT_SECONDS, Load, Scaling, decide
from serving.load_trace import LoadTrace

__all__ = ["Moment", "Replay", "Workload", "replay"]

_BUSIEST: Final = 0.995
"""Where the queueing formula stops: beyond it the backlog says how long requests wait."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What the load costs, and how long its callers and the machines take. Seconds."""

    work: float
    """CPU time of one request in a worker."""

    deadline: float = 1.0
    """A request that would wait longer is refused."""

    start: float = 5.0
    """From a worker's being asked for until it serves."""

    worker_cpus: float = 1.0
    """CPUs reserved for each worker, for the cost."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One second of the replay."""

    at: float
    rate: float
    wanted: int
    serving: int
    busy: float
    """Share of the serving workers' time, 0 to 1."""

    mean: float
    p99: float
    """Seconds."""

    refused: float
    """Requests refused in this second."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run and what it adds up to."""

    moments: list[Moment]
    requests: float
    refused: float
    worker_seconds: float
    cpu_hours: float
    most: int
    ups: int
    downs: int
    turns: int
    """Changes of direction: up after down or down after up. A policy that flaps has many."""

    p99: float
    """Of the seconds' 99th percentiles, weighted by requests, the 99th percentile."""

    fixed: int
    """Workers that would have stayed at the target at the peak, had they always run."""

    fixed_cpu_hours: float


def replay(trace: LoadTrace, scaling: Scaling, workload: Workload) -> Replay:
    """Run the policy over the trace, a second at a time, as the engine calls it."""
    current = scaling.min
    started: list[float] = [-math.inf] * current  # when each worker was asked for
    memory: dict[str, Any] = {}
    seen: deque[Load] = deque(maxlen=round(AVERAGED_SECONDS / REPORT_SECONDS))
    backlog = 0.0
    moments: list[Moment] = []
    directions: list[int] = []
    for second, rate in enumerate(trace.rates(REPORT_SECONDS)):
        at = second * REPORT_SECONDS
        serving = sum(at - since >= workload.start for since in started)
        crew = (current, serving)
        backlog, moment = _second(at, rate, backlog, crew, workload)
        moments.append(moment)
        seen.append(
            Load(
                busy=moment.busy * serving,
                in_flight=rate * moment.mean if backlog == 0 else backlog + serving,
            )
        )
        average = Load(
            busy=sum(load.busy for load in seen) / len(seen),
            in_flight=sum(load.in_flight for load in seen) / len(seen),
        )
        number, memory = decide(average, scaling, current, at, memory)
        if number != current:
            directions.append(1 if number > current else -1)
        # The newest are taken away first: Serve prefers replicas that do not serve yet.
        started = started[:number] + [at] * (number - current)
        current = number
    return _sum_up(trace, scaling, workload, moments, directions)


def _second(
    at: float, rate: float, backlog: float, crew: tuple[int, int], workload: Workload
) -> tuple[float, Moment]:
    """What waits after this second, and the second. `crew` is workers asked for, and serving."""
    wanted, serving = crew
    able = serving / workload.work  # requests a second
    waiting = backlog + rate * REPORT_SECONDS
    answered = min(waiting, able * REPORT_SECONDS)
    room = able * workload.deadline
    left = waiting - answered
    refused = max(0.0, left - room)
    left -= refused
    busy = answered / (able * REPORT_SECONDS) if able else 0.0
    queued = (backlog + left) / 2 / able if able else workload.deadline
    rho = min(rate / able, _BUSIEST) if able else _BUSIEST
    slack = 2 * (1 - rho)
    wait = rho * workload.work / slack
    tail = workload.work * max(0.0, math.log(rho / 0.01)) / slack if rho > 0 else 0.0
    most = workload.work + workload.deadline
    moment = Moment(
        at=at,
        rate=rate,
        wanted=wanted,
        serving=serving,
        busy=busy,
        mean=min(workload.work + wait + queued, most),
        p99=min(workload.work + max(wait, tail) + queued, most),
        refused=refused,
    )
    return left, moment


def _sum_up(
    trace: LoadTrace,
    scaling: Scaling,
    workload: Workload,
    moments: list[Moment],
    directions: list[int],
) -> Replay:
    worker_seconds = sum(moment.wanted for moment in moments) * REPORT_SECONDS
    fixed = max(1, math.ceil(trace.peak * workload.work / scaling.target_busy))
    hours = workload.worker_cpus / 3600
    return Replay(
        moments=moments,
        requests=sum(moment.rate for moment in moments) * REPORT_SECONDS,
        refused=sum(moment.refused for moment in moments),
        worker_seconds=worker_seconds,
        cpu_hours=worker_seconds * hours,
        most=max(moment.wanted for moment in moments),
        ups=directions.count(1),
        downs=directions.count(-1),
        turns=sum(a != b for a, b in pairwise(directions)),
        p99=_weighted(moments, 0.99),
        fixed=fixed,
        fixed_cpu_hours=fixed * len(moments) * REPORT_SECONDS * hours,
    )


def _weighted(moments: list[Moment], share: float) -> float:
    """The p99 that all but `1 - share` of the requests' seconds stay within."""
    total = sum(moment.rate for moment in moments)
    reached = 0.0
    for moment in sorted(moments, key=lambda moment: moment.p99):
        reached += moment.rate
        if reached >= share * total:
            return moment.p99
    return 0.0
