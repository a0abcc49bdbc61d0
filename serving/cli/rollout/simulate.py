"""`sluice rollout simulate`: how often a plan is wrong, before it is used."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from serving.cli.duration import read_duration
from serving.cli.log.place import read_moment
from serving.cli.output import CommandError, Output, output_options, plain_table

if TYPE_CHECKING:
    from rich.console import Group

    from serving.cli.rollout.planned import Planned
    from serving.rollout.simulate.verdicts import Answer, Question

__all__ = ["simulate"]

_FALSE: Final = ("as-good",)
_WORSE: Final = (
    "fails-twice-as-often",
    "fails-four-times-as-often",
    "always-fails",
    "slow-tail",
    "flipped",
)
_SCENARIOS: Final = ("flat", "daily", "incident", "rising", "falling")
_MOST_LOOKS: Final = 1200
_Callback = TypeVar("_Callback", bound=Callable[..., Any])


class Verdict(msgspec.Struct, kw_only=True):
    """What `sluice rollout simulate --json` prints."""

    model: str
    alpha: float
    look_seconds: float
    """Between looks at the evidence."""

    false_aborts: dict[str, "Answer"]
    """By scenario: a new version as good as production."""

    detection: dict[str, "Answer"]
    """By what is wrong with the new version."""

    left_out: list[str]
    """Rules that were not tried: they need labels, copies, a limit, or what the log lacks."""


def _traffic_options(callback: _Callback) -> _Callback:
    """Options of made-up traffic, passed as the mapping `traffic`."""

    @click.option(
        "--rps", type=click.FloatRange(0, min_open=True), default=100.0, show_default=True,
        help="Requests a second, of both versions.",
    )  # fmt: skip
    @click.option(
        "--error-rate", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.005,
        show_default=True, help="Share of production's requests that fail.",
    )  # fmt: skip
    @click.option(
        "--slow", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.01,
        show_default=True, help="Share of production's requests beyond a latency rule's `exceeds`.",
    )  # fmt: skip
    @click.option(
        "--keys", type=click.IntRange(2, 1_000_000),
        help="Users who stay with a version and count once.  [each request is drawn by itself]",
    )  # fmt: skip
    @click.option(
        "--scenario", "scenarios", multiple=True, type=click.Choice(_SCENARIOS),
        help="Course of the traffic; may be repeated.  [all of them]",
    )  # fmt: skip
    @click.option(
        "--look", metavar="TIME", callback=read_duration,
        help="Between looks at the evidence.  [1s; for a plan of hours, 1200 looks in all]",
    )  # fmt: skip
    @functools.wraps(callback)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        names = ("rps", "error_rate", "slow", "keys", "scenarios", "look")
        return callback(*args, traffic={name: kwargs.pop(name) for name in names}, **kwargs)

    return wrapped  # type: ignore[return-value]


@click.command(short_help="Try a plan on made-up traffic, or on the prediction log.")
@click.argument("target", metavar="MODEL|DIR")
@click.option("--model", help="Which model of DIR, if several have a plan.")
@click.option(
    "--config", "directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="Where MODEL's file is  [what the gateway on this machine serves].",
)  # fmt: skip
@click.option("--runs", type=click.IntRange(20, 100_000), default=100, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="The same: the same answer.")
@_traffic_options
@click.option("--from-log", is_flag=True, help="Production's requests in the log instead.")
@click.option("--since", callback=read_moment, help="Of the log from then on: 2h (ago) or a time.")
@click.option("--until", callback=read_moment, help="Of the log up to then.")
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False),
    help="Data directory of the gateway, or the configuration directory it is in.",
)  # fmt: skip
@click.option(
    "--log", "folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="The log itself, such as a copy of one  [the gateway's].",
)  # fmt: skip
@click.option(
    "--fail-on", "bound", metavar="PERCENT", type=click.FloatRange(0, 100),
    help="Exit with 1 if more than this share of good versions is proven to be stopped.",
)  # fmt: skip
@output_options
def simulate(
    target: str,
    *,
    model: str | None,
    directory: Path | None,
    runs: int,
    seed: int,
    traffic: dict[str, Any],
    from_log: bool,
    since: float | None,
    until: float | None,
    data: Path | None,
    folder: Path | None,
    bound: float | None,
    output: Output,
) -> None:
    """Try a rollout's plan many times, and say how often it is wrong and how soon it is right.

    The plan is the one of MODEL's file: its steps, bakes, guardrails with their tolerance and
    shared alpha, and hard stops. The evidence is looked at by the functions that decide in a real
    rollout. False aborts are stops of a version as good as production; each share
    comes with its 95 % interval. Approvals come at once and labels in time; rules about labels,
    copies and fixed limits are not tried, and keep their part of alpha.

    With --from-log nothing is made up: production's own requests are split anew in each run, by
    key, as if both halves were versions. Whatever stops is a false alarm on this very traffic.

    \b
    Examples:
      sluice rollout simulate configs/demo
      sluice rollout simulate configs/demo --rps 20 --keys 5000 --scenario incident
      sluice rollout simulate employment --from-log --since 7d --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.rollout.planned import planned

    found = planned(target, model=model, directory=directory, data=data)
    if from_log:
        from serving.cli.log.place import log_place
        from serving.cli.rollout.logged import from_the_log

        place = log_place(data if data is not None else found.directory, folder)
        with _progress(silent=output.json) as told:
            answer = from_the_log(
                found, place.folder, since=since, until=until, runs=runs, seed=seed, told=told
            )
        verdict = _verdict(found, 1.0, {"log": answer}, {})
    else:
        verdict = _made_up(found, traffic, runs, seed, output)
    output.answer(verdict, lambda: _show(verdict))
    high = max(answer.low for answer in verdict.false_aborts.values())
    if bound is not None and 100 * high > bound:
        raise CommandError(
            f"more than {bound:g} % of the versions that are as good as production are stopped",
            "raise the tolerance of the rule that stops most of them, or lower alpha",
        )


def _made_up(
    found: "Planned", traffic: dict[str, Any], runs: int, seed: int, output: Output
) -> Verdict:
    from serving.rollout.simulate.stages import stages
    from serving.rollout.simulate.verdicts import Question, answer
    from serving.rollout.simulate.world import CANARIES, World

    world = World(
        requests_per_second=traffic["rps"],
        error_rate=traffic["error_rate"],
        slow=traffic["slow"],
        bins=found.bins,
    )
    span = sum(stage.at_least for stage in stages(found.rollout, world) if stage.rho > 0)
    look = traffic["look"] or max(1.0, math.ceil(span / _MOST_LOOKS))

    def asked(canary: str, scenario: str) -> "Question":
        return Question(
            rollout=found.rollout, world=world, canary=CANARIES[canary], scenario=scenario,
            keys=traffic["keys"], runs=runs, seed=seed,
            look=1.0 if CANARIES[canary].always_fails else look,  # it is over within seconds
        )  # fmt: skip

    scenarios = traffic["scenarios"] or _SCENARIOS
    false_aborts, detection = {}, {}
    with _progress(silent=output.json) as told:
        for scenario in scenarios:
            words = functools.partial(told, f"as good, {scenario}")
            false_aborts[scenario] = answer(asked("as-good", scenario), words)
        for canary in _WORSE:
            words = functools.partial(told, canary)
            detection[canary] = answer(asked(canary, scenarios[0]), words)
    return _verdict(found, look, false_aborts, detection)


def _verdict(
    found: "Planned",
    look: float,
    false_aborts: "dict[str, Answer]",
    detection: "dict[str, Answer]",
) -> Verdict:
    left_out = next(iter(false_aborts.values())).left_out
    return Verdict(
        model=found.model,
        alpha=found.rollout.guardrails.alpha,
        look_seconds=look,
        false_aborts=false_aborts,
        detection=detection,
        left_out=left_out,
    )


def _progress(*, silent: bool) -> Any:
    from serving.cli.rollout.simulate_progress import progress

    return progress(silent=silent)


def _show(verdict: Verdict) -> "Group":
    from rich.console import Group

    good = plain_table("AS GOOD AS PRODUCTION", "RUNS", "STOPPED", "95 % INTERVAL", "BY", "DONE IN")
    for name, one in verdict.false_aborts.items():
        good.add_row(name, f"{one.runs:,}", *_stopped(one), _time(one.duration))
    parts: list[object] = [good]
    if verdict.detection:
        worse = plain_table(
            "WORSE", "RUNS", "STOPPED", "95 % INTERVAL", "BY", "MEDIAN", "90 %", "PROMOTED"
        )
        for name, one in verdict.detection.items():
            promoted = f"{one.completed / one.runs:.1%}"
            worse.add_row(
                name, f"{one.runs:,}", *_stopped(one), _time(one.median), _time(one.p90), promoted
            )
        parts += ["", worse]
    return Group(*parts, "", *_words(verdict))  # type: ignore[arg-type]


def _stopped(one: "Answer") -> tuple[str, str, str]:
    by = ", ".join(f"{rule} {count}" for rule, count in one.by.items())
    return f"{one.share:.1%}", f"{one.low:.1%} to {one.high:.1%}", by or "-"


def _words(verdict: Verdict) -> list[str]:
    looked = f"alpha {verdict.alpha:g}, looked at every {verdict.look_seconds:g} s"
    lines = [f"{verdict.model}: {looked}. Times count from the first step with a weight."]
    if verdict.left_out:
        lines.append(f"not tried: {', '.join(verdict.left_out)}")
    unfinished = {
        name: f"{one.inconclusive:,} of {one.runs:,}"
        for name, one in verdict.false_aborts.items()
        if one.inconclusive
    }
    lines += [
        f"{name}: in {number} runs a step is over before everything it asks for is there"
        for name, number in unfinished.items()
    ]
    return lines


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
