"""What is offered to a server, and what a run says of it. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from serving.config.units import Seconds
from serving.loadtest.histogram import Histogram
from serving.loadtest.results import Counts, Result
from serving.loadtest.scenario import Phase, RequestKind, Scenario

__all__ = ["AFTER_SECONDS", "Point", "Recovery", "Server", "offered", "point", "recovery", "spike"]

SETTLE_SECONDS: Final = 1.0
"""At the start of each run, not counted: queues fill and estimates are learned."""

BIN_SECONDS: Final = 0.1
BEFORE_SECONDS: Final = 3.0
AFTER_SECONDS: Final = 8.0
BASE: Final = 0.5
"""Of capacity, before and after the spike."""

BACK: Final = 0.9
"""Share of a second's requests that are answered in time once a server has recovered. Of a tenth's
it would say less: there are a dozen, and a machine that is not ours alone costs two at any time."""

_REFUSALS: Final = ("429", "503")
MAX_LAG: Final = 0.02


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One offered load. Rates in requests a second, times in seconds from when one was due."""

    factor: float
    """Times capacity."""

    capacity: float
    """Requests a second in a closed loop, the mean of right before and right after: a machine that
    is not ours alone can do more at one time than at another."""

    offered: float
    goodput: float
    """Answered with success within the deadline."""

    refused: float
    """Answered 429 or 503."""

    expired: float
    """Answered 504: taken, and then not done in time."""

    late: float
    """Answered with success, after the deadline."""

    lost: float
    """Without an answer when the client gave up, or not sent because its time was over."""

    errors: float
    """Answered with anything else."""

    p50: float | None
    p99: float | None
    """Of all that were not answered with an error; None if there were none."""

    refused_p50: float | None
    refused_p99: float | None
    """Of those that were answered with an error, 504 included; None if there were none."""

    lag_p99: float
    """How late the generator sent; the point is void if that is past 20 ms."""

    @property
    def share(self) -> float:
        """Goodput by capacity."""
        return self.goodput / self.capacity

    @property
    def valid(self) -> bool:
        """Whether the generator kept its schedule."""
        return self.lag_p99 <= MAX_LAG


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What a spike leaves behind."""

    factor: float
    offered: float = 0.0
    """During the spike, requests a second; 0.0 in figures from before this was kept."""

    lasted: float
    goodput: float
    """During the spike, requests a second."""

    seconds: float | None
    """From the end of the spike until the beginning of the first second of which 90 % are answered
    in time, in tenths of a second; None if there was none."""

    lag_p99: float


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured of one server."""

    name: str
    points: list[Point]
    recovery: Recovery | None = None

    @property
    def peak(self) -> float:
        """The largest share of capacity that was answered in time at any load."""
        return max(one.share for one in self.points)


def _scenario(
    address: str, model: str, bodies: Sequence[str], phases: list[Phase], limits: dict[str, Any]
) -> Scenario:
    return Scenario(
        schema_version=1,
        name="overload",
        target=f"http://{address}",
        requests=[RequestKind(name=body, model=model, body=body) for body in bodies],
        phases=phases,
        **limits,
    )


def offered(
    address: str,
    model: str,
    bodies: Sequence[str],
    *,
    rate: float,
    seconds: float,
    limits: dict[str, Any],
) -> Scenario:
    """A steady rate of random arrivals, its first second left out."""
    phases = [
        Phase(name="settle", length=Seconds(SETTLE_SECONDS), rate=rate, warmup=True),
        Phase(name="steady", length=Seconds(seconds), rate=rate),
    ]
    return _scenario(address, model, bodies, phases, limits)


def spike(
    address: str,
    model: str,
    bodies: Sequence[str],
    *,
    capacity: float,
    factor: float,
    seconds: float,
    limits: dict[str, Any],
) -> Scenario:
    """Half of capacity, then `factor` times for `seconds`, then half, in tenths of a second."""
    half = BASE * capacity
    phases = [
        Phase(name="before", length=Seconds(BEFORE_SECONDS), rate=half),
        Phase(name="spike", length=Seconds(seconds), rate=factor * capacity),
        *(
            Phase(name=f"after-{number:03}", length=Seconds(BIN_SECONDS), rate=half)
            for number in range(round(AFTER_SECONDS / BIN_SECONDS))
        ),
    ]
    return _scenario(address, model, bodies, phases, limits)


def point(result: Result, factor: float, capacity: float) -> Point:
    """What the counted phase of a steady run says, at a load of `factor` times `capacity`."""
    [phase] = [one for one in result.phases if one.name == "steady"]
    counts, seconds = phase.counts, phase.seconds
    refused = sum(counts.statuses.get(status, 0) for status in _REFUSALS)
    expired = counts.statuses.get("504", 0)
    p50, p99 = _halfway(counts.latency)
    refused_p50, refused_p99 = _halfway(counts.rejected)
    return Point(
        factor=factor,
        capacity=capacity,
        offered=counts.scheduled / seconds,
        goodput=counts.good / seconds,
        refused=refused / seconds,
        expired=expired / seconds,
        late=(counts.ok - counts.good) / seconds,
        lost=(counts.scheduled - counts.answered) / seconds,
        errors=(counts.answered - counts.ok - refused - expired) / seconds,
        p50=p50,
        p99=p99,
        refused_p50=refused_p50,
        refused_p99=refused_p99,
        lag_p99=result.generator.lag.quantile(0.99),
    )


def _halfway(times: Histogram) -> tuple[float | None, float | None]:
    """Median and 99th percentile."""
    if not times.count:
        return None, None
    p50, p99 = times.quantiles((0.5, 0.99))
    return p50, p99


def recovery(result: Result, factor: float) -> Recovery:
    """How long a spike was felt."""
    phases = {one.name: one for one in result.phases}
    after = [one.counts for name, one in phases.items() if name.startswith("after-")]
    during = phases["spike"]
    return Recovery(
        factor=factor,
        offered=during.counts.scheduled / during.seconds,
        lasted=during.seconds,
        goodput=during.counts.good / during.seconds,
        seconds=_until_back(after),
        lag_p99=result.generator.lag.quantile(0.99),
    )


def _until_back(bins: Sequence[Counts]) -> float | None:
    """When the first good second begins, and its first tenth is good too."""
    second = round(1 / BIN_SECONDS)
    for number in range(len(bins) - second + 1):
        if _is_back(bins[number : number + 1]) and _is_back(bins[number : number + second]):
            return number * BIN_SECONDS
    return None


def _is_back(bins: Sequence[Counts]) -> bool:
    return sum(one.good for one in bins) >= BACK * sum(one.scheduled for one in bins)
