"""The verdict: is the run valid, and does what it saw meet what must hold? Pure."""

from typing import Final, Literal

import msgspec

from serving.loadtest.checks import Check, checks, failures
from serving.loadtest.results import Counts, GeneratorCheck, Result
from serving.loadtest.scenario import Slo
from serving.loadtest.words import share_words
from serving.report.words import short_time

__all__ = ["Verdict", "judge", "validity"]

_MAX_CPU: Final = 0.95
"""Share of a core; a process busier than that is late, whether or not its lag shows it yet."""

_MAX_WAITED: Final = 0.01
"""Share of requests that may find all connections busy."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What comes of a run. `outcome` is `met` only if it is valid and every check is."""

    outcome: Literal["met", "missed", "invalid"]
    invalid: list[str]
    """Why nothing can be concluded, and what to change; empty for a valid run."""

    checks: list[Check]


def judge(result: Result, slos: list[Slo]) -> Verdict:
    """Say whether `result` meets `slos`. Raises nothing: what is not measured is not met."""
    invalid = validity(result)
    found = [_schedule(result), *(check for slo in slos for check in checks(result, slo))]
    missed = any(not check.ok for check in found)
    outcome: Literal["met", "missed", "invalid"] = "missed" if missed else "met"
    return Verdict(outcome="invalid" if invalid else outcome, invalid=invalid, checks=found)


# --- is it a measurement ---------------------------------------------------------------------


def validity(result: Result) -> list[str]:
    """Why the run says nothing about the target, and what to change."""
    whole, generator = result.whole, result.generator
    if result.interrupted:
        return ["the run was stopped before its end"]
    if not whole.scheduled:
        return ["nothing was sent outside warm-up; make a phase longer or its rate higher"]
    if not whole.ok:
        return [f"no request succeeded ({failures(whole)}): {_first_problem(whole)}"]
    found = []
    late = generator.lag.quantile(0.99)
    if late > generator.max_lag:
        found.append(
            f"the generator fell behind its schedule: 1 % of the requests left "
            f"{short_time(late)} late or more, the latest {short_time(generator.lag.largest)} "
            f"(`max_lag` is {short_time(generator.max_lag)}); {_relief(generator)}"
        )
    if generator.cpu_share > _MAX_CPU:
        found.append(
            f"a generator process used {generator.cpu_share:.0%} of a core; {_relief(generator)}"
        )
    return found


def _relief(generator: GeneratorCheck) -> str:
    return (
        f"lower the rate, or raise `processes` ({generator.processes}) where there are cores free"
    )


def _first_problem(counts: Counts) -> str:
    if not counts.statuses:
        return "no connection was free; raise `connections`"
    worst = max(counts.statuses, key=lambda status: counts.statuses[status])
    return counts.problems.get(worst) or "it gave no words"


def _schedule(result: Result) -> Check:
    """Every run's own SLO: the target takes requests as fast as the schedule has them."""
    waits, whole = result.generator.waits, result.whole
    waited = waits.count / max(result.generator.lag.count, 1)
    ok = waited <= _MAX_WAITED and not whole.unsent
    wanted, measured = f"≤ {share_words(_MAX_WAITED)} wait", f"{share_words(waited)} wait"
    words = "requests found a free connection when they were due"
    if not ok:
        words = (
            f"{share_words(waited)} of the requests waited for a free connection, 1 % of these "
            f"{short_time(waits.quantile(0.99))} or longer, {whole.unsent} in vain: the target is "
            f"slower than the schedule; lower the rate, or raise `connections` "
            f"({result.connections})"
        )
    return Check(
        name="schedule",
        wanted=wanted,
        measured=measured,
        ok=ok,
        words=words,
        place="whole run",
        figure="schedule",
        value=waited,
        at_most=_MAX_WAITED,
    )
