"""Whether to ask for a training now: harm that lasts, not too often, never on broken data. Pure.

    state, decision = decide(state, verdict, policy, now)      # at every report
    state = ended(state, improved=True)                        # when a training is over

A request only asks: what comes back enters as a shadow and passes the usual gates.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from serving.drift.verdict import Verdict

__all__ = ["Decision", "RetrainPolicy", "RetrainState", "decide", "ended", "resumed"]

BUDGET_PERIOD: Final = 30 * 86400.0
"""Seconds that `budget` counts over."""

MOST_FAILURES: Final = 3
"""Trainings in a row without improvement, after which a person has to look."""


class RetrainPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`monitoring.retrain`, in seconds."""

    debounce: float = 600.0
    cooldown: float = 86400.0
    budget: int = 3
    min_labels: int = 1000


class RetrainState(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be remembered between two decisions. Times are seconds since 1970."""

    harm_since: float | None = None
    """Since when harm was seen without a break."""
    asked: tuple[float, ...] = ()
    """When training was asked for, in the last 30 days."""
    in_flight: bool = False
    """One was asked for and has not ended."""
    failures: int = 0
    """Trainings in a row that improved nothing."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for a training or not, and why; `person`: somebody has to look."""

    ask: bool
    words: str
    person: bool = False


def decide(
    state: RetrainState, verdict: Verdict, policy: RetrainPolicy, now: float
) -> tuple[RetrainState, Decision]:
    """Decide at one moment; the state to remember comes back with the decision."""
    asked = tuple(at for at in state.asked if now - at < BUDGET_PERIOD)
    state = replace(state, asked=asked)
    if verdict.level != "trigger":
        return replace(state, harm_since=None), Decision(ask=False, words="no harm is seen")
    if verdict.quality_broken:
        # What was lost to broken data says nothing about the model, so the wait starts again.
        words = "harm is seen, but data quality is broken: mend the data first"
        return replace(state, harm_since=None), Decision(ask=False, words=words)
    if verdict.evidence != "estimated" and verdict.labels < policy.min_labels:
        words = f"{verdict.labels} labels are fewer than min_labels, {policy.min_labels}"
        return replace(state, harm_since=None), Decision(ask=False, words=words)
    since = now if state.harm_since is None else state.harm_since
    state = replace(state, harm_since=since)
    if refusal := _refusal(state, policy, now):
        return state, refusal
    words = f"asked for a training: {'; '.join(verdict.reasons[:1])}"
    if verdict.evidence == "estimated":
        words += " (evidence=estimated)"
    return replace(state, asked=(*asked, now), in_flight=True), Decision(ask=True, words=words)


def ended(state: RetrainState, *, improved: bool) -> RetrainState:
    """A training is over; whether its result did better than what it should replace."""
    failures = 0 if improved else state.failures + 1
    return replace(state, in_flight=False, harm_since=None, failures=failures)


def resumed(state: RetrainState) -> RetrainState:
    """A person has looked: trainings in vain are forgotten."""
    return replace(state, failures=0)


def _refusal(state: RetrainState, policy: RetrainPolicy, now: float) -> Decision | None:
    """The first reason not to ask, though harm is seen."""
    assert state.harm_since is not None
    seen = now - state.harm_since
    if state.in_flight:
        return Decision(ask=False, words="a training is running already")
    if state.failures >= MOST_FAILURES:
        words = f"{state.failures} trainings in a row improved nothing: a person has to look"
        return Decision(ask=False, words=words, person=True)
    if seen < policy.debounce:
        words = f"harm is seen for {seen:.0f} s; debounce is {policy.debounce:.0f} s"
        return Decision(ask=False, words=words)
    if state.asked and now - state.asked[-1] < policy.cooldown:
        left = policy.cooldown - (now - state.asked[-1])
        return Decision(ask=False, words=f"cooldown: {left:.0f} s since the last request are left")
    if len(state.asked) >= policy.budget:
        words = (
            f"{len(state.asked)} trainings were asked for in 30 days, and budget is "
            f"{policy.budget}: a person has to look"
        )
        return Decision(ask=False, words=words, person=True)
    return None
