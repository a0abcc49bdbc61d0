"""`sluice simulate autoscale`: replay a load through the policy that scales the workers."""

import functools
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from serving.cli.duration import read_duration
from serving.cli.output import CommandError, Output, output_options, plain_table
from serving.cli.sparkline import columns, sparkline
from serving.config.load import load_gateway
from serving.config.schema import WorkersConfig
from serving.engine.autoscale import Scaling
from serving.engine.autoscale_replay import Moment, Replay, Workload, replay
from serving.load_trace import SHAPES, LoadTrace, read_trace, shape

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["autoscale"]

_WIDTH: Final = 40
_ROWS: Final = 20
_COLUMNS: Final = ("TIME", "REQUESTS/S", "WORKERS", "SERVING", "BUSY", "MEAN", "P99", "REFUSED")
_Callback = TypeVar("_Callback", bound=Callable[..., Any])


def _policy_options(callback: _Callback) -> _Callback:
    """Options that change one setting of `engine.workers` each."""

    @click.option("--min", "least", type=click.IntRange(1, 256), help="Workers that always run.")
    @click.option("--max", "most", type=click.IntRange(1, 256), help="Most workers.")
    @click.option("--target-busy", type=click.FloatRange(0, 1, min_open=True, max_open=True))
    @click.option("--target-in-flight", type=click.FloatRange(0, min_open=True))
    @click.option("--upscale-delay", metavar="TIME", callback=read_duration)
    @click.option("--downscale-delay", metavar="TIME", callback=read_duration)
    @functools.wraps(callback)
    def wrapped(*args: Any, least: int | None, most: int | None, **kwargs: Any) -> Any:
        names = ("target_busy", "target_in_flight", "upscale_delay", "downscale_delay")
        given = {"min": least, "max": most} | {name: kwargs.pop(name) for name in names}
        changed = {name: value for name, value in given.items() if value is not None}
        return callback(*args, changed=changed, **kwargs)

    return wrapped  # type: ignore[return-value]


@click.command(short_help="Replay a load through the policy that scales the workers.")
@click.argument("trace", required=False, type=click.Path(path_type=Path))
@click.option(
    "--config",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Take the policy from this directory's gateway.yaml.",
)
@click.option("--shape", "form", type=click.Choice(list(SHAPES)), help="A made-up load instead.")
@click.option("--low", type=click.FloatRange(0), default=100.0, help="Its least requests/s.")
@click.option("--peak", type=click.FloatRange(0), default=5000.0, help="Its most requests/s.")
@click.option(
    "--for", "length", metavar="TIME", default="10m", callback=read_duration, help="Its length."
)
@click.option("--seed", type=int, default=1, help="Of the random one.")
@click.option(
    "--work",
    metavar="TIME",
    default="250us",
    callback=read_duration,
    help="CPU time of a request in a worker.  [250us]",
)
@click.option(
    "--deadline", metavar="TIME", callback=read_duration, help="Of a request.  [the configured one]"
)
@click.option(
    "--start",
    metavar="TIME",
    default="6s",
    callback=read_duration,
    help="From asking for a worker until it serves.  [6s]",
)
@click.option(
    "--fail-on",
    "bound",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Exit with 1 if more than this share of requests is refused.",
)
@_policy_options
@output_options
def autoscale(
    trace: Path | None,
    *,
    config: Path | None,
    form: str | None,
    low: float,
    peak: float,
    length: float,
    seed: int,
    work: float,
    deadline: float | None,
    start: float,
    bound: float | None,
    changed: dict[str, Any],
    output: Output,
) -> None:
    """Replay a load through the policy that scales the workers, and show what it would do.

    The policy is the very function that runs in Ray Serve's controller; gateway and queue are a
    model (one core a worker, random arrivals), so latencies are estimates. Settings come from
    `engine.workers` of --config; options replace single ones.

    TRACE is a table with the columns `seconds` and `rps`, or Prometheus's answer to a range query,
    such as `sum(rate(sluice_requests_total[1m]))`. Without one, --shape makes a load up:

    \b
      steady  low, then peak          spike  low, with a peak of a tenth of the time
      steps   up to peak and down     waves  ten waves
      noise   at random in between    day    one slow wave

    \b
    Examples:
      sluice simulate autoscale --shape spike --peak 6000 --max 4
      sluice simulate autoscale load.csv --config configs/demo --max 4 --work 300us
      sluice simulate autoscale --shape day --for 24h --max 8 --downscale-delay 10m --json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    if (trace is None) == (form is None):
        raise click.UsageError("give either TRACE or --shape")
    scaling, cpus, configured = _settings(config, changed)
    if work <= 0:
        raise click.UsageError("--work must be more than nothing")
    workload = Workload(
        work=work,
        deadline=configured if deadline is None else deadline,
        start=start,
        worker_cpus=cpus,
    )
    if trace is not None:
        load = read_trace(trace)
    else:
        assert form is not None
        load = shape(form, low=low, peak=peak, seconds=length, seed=seed)
    result = replay(load, scaling, workload)
    output.answer(result, lambda: _show(load, scaling, workload, result))
    lost = 100 * result.refused / result.requests if result.requests else 0.0
    if bound is not None and lost > bound:
        raise CommandError(
            f"{lost:.3g} % of requests would be refused, more than {bound:g} %",
            "raise min or max, lower target_busy, or shorten upscale_delay",
        )


def _settings(config: Path | None, changed: dict[str, Any]) -> tuple[Scaling, float, float]:
    workers, cpus, deadline = WorkersConfig(), 1.0, 1.0
    if config is not None:
        gateway = load_gateway(config)
        said = gateway.engine.workers
        workers = WorkersConfig(min=said, max=said) if isinstance(said, int) else said
        cpus, deadline = gateway.engine.worker_cpus, float(gateway.limits.default_deadline)
    names = {name: getattr(workers, name) for name in Scaling.__struct_fields__}
    settings = names | changed
    if "max" not in changed:
        settings["max"] = max(settings["max"], settings["min"])
    if settings["min"] > settings["max"]:
        raise click.UsageError(f"--min {settings['min']} is more than --max {settings['max']}")
    return Scaling(**settings), cpus, deadline


def _show(load: LoadTrace, scaling: Scaling, workload: Workload, result: Replay) -> "Group":
    from rich.console import Group

    moments = result.moments
    rates = columns([moment.rate for moment in moments], _WIDTH)
    wanted = columns([moment.wanted for moment in moments], _WIDTH)
    slow = columns([moment.p99 for moment in moments], _WIDTH)
    refused = columns([moment.refused for moment in moments], _WIDTH)
    bars = plain_table("", "", "")
    bars.show_header = False
    bars.add_row("rate", sparkline(rates, low=0), f"up to {load.peak:,.0f} requests/s")
    span = f"{min(moment.wanted for moment in moments)} to {result.most}"
    bars.add_row("workers", sparkline(wanted, low=0), span)
    bars.add_row("p99", sparkline(slow, low=0), f"up to {_milliseconds(max(slow))}")
    if result.refused:
        bars.add_row("refused", sparkline(refused, low=0), f"up to {max(refused):,.0f} a second")
    table = plain_table(
        "TIME", "REQUESTS/S", "WORKERS", "SERVING", "BUSY", "MEAN", "P99", "REFUSED"
    )
    for moment in _chosen(moments):
        table.add_row(
            _clock(moment.at),
            f"{moment.rate:,.0f}",
            str(moment.wanted),
            str(moment.serving),
            f"{moment.busy:.0%}",
            _milliseconds(moment.mean),
            _milliseconds(moment.p99),
            f"{moment.refused:,.0f}",
        )
    return Group(bars, "", table, "", _words(scaling, workload, result))


def _words(scaling: Scaling, workload: Workload, result: Replay) -> str:
    lost = result.refused / result.requests if result.requests else 0.0
    saved = 1 - result.cpu_hours / result.fixed_cpu_hours
    compared = f"{saved:.0%} less than" if saved >= 0 else f"{-saved:.0%} more than"
    work = f"{workload.work * 1e6:,.0f} us"
    policy = f"{scaling.min} to {scaling.max} workers, target {scaling.target_busy:.0%} busy"
    changes = f"{result.ups} up, {result.downs} down; the direction turned {result.turns} times"
    cost = f"{result.cpu_hours:.3f} CPU hours, {compared} {result.fixed} workers that always run"
    late = f"{_milliseconds(result.p99)} or less for 99 % of the requests (estimate)"
    return (
        f"{result.requests:,.0f} requests of {work}, {policy}\n"
        f"refused   {result.refused:,.0f} ({lost:.2%})\n"
        f"p99       {late}\n"
        f"changes   {changes}\n"
        f"cost      {cost}"
    )


def _chosen(moments: list[Moment]) -> list[Moment]:
    """Evenly spread seconds, and those where the number of workers changed; `_ROWS` or so."""
    step = max(1, len(moments) // (_ROWS // 2))
    changes = [
        index
        for index, (before, after) in enumerate(pairwise(moments), 1)
        if after.wanted != before.wanted
    ]
    spread = changes[:: max(1, len(changes) // (_ROWS // 2))]
    return [moments[index] for index in sorted({*range(0, len(moments), step), *spread})]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
