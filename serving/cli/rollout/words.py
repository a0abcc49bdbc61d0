"""A rollout in words. Pure: values become text."""

from collections.abc import Sequence
from typing import Final

from serving.cli.span import age
from serving.rollout.standing import RolloutStanding, RuleStanding
from serving.rollout.state import Event

__all__ = [
    "bar",
    "changes",
    "counts",
    "effect",
    "estimate",
    "glance",
    "happened",
    "headline",
    "is_over",
    "number",
    "phase_words",
    "step_words",
    "sums",
]

_BAR: Final = 6
_DIFFERENCES: Final = frozenset({"label_loss", "slice_gap"})
_HAPPENED: Final = {
    "started": "began",
    "stepped": "went to step {step}",
    "paused": "was paused",
    "resumed": "went on",
    "approved": "was approved",
    "promoted": "was promoted",
    "promoting": "gives everything to the new version",
    "aborting": "takes traffic back",
    "aborted": "is aborted: every worker has it",
    "done": "is done: every worker has it",
    "superseded": "was superseded",
    "frozen": "took bounds from production",
}


def is_over(standing: RolloutStanding) -> bool:
    """Whether nothing will come of it any more."""
    return standing.phase in ("aborted", "done")


def phase_words(standing: RolloutStanding) -> str:
    """The phase as people say it."""
    return standing.phase.replace("_", " ")


def step_words(standing: RolloutStanding) -> str:
    """`step 2 of 4: weight 5 %`."""
    if standing.step >= len(standing.steps):
        return f"step {standing.step + 1}"
    return f"step {standing.step + 1} of {len(standing.steps)}: {standing.steps[standing.step]}"


def headline(standing: RolloutStanding, now: float) -> str:
    """What it is and how far, in one line."""
    since = age(now - standing.began)
    return (
        f"{standing.model}: {standing.production} → {standing.canary}, {phase_words(standing)}, "
        f"{step_words(standing)} ({standing.id}, revision {standing.revision}, began {since} ago)"
    )


def glance(standing: RolloutStanding) -> str:
    """Where it is and what its rules say, in one line, and how to see more."""
    rules = ", ".join(f"{one.name} {one.verdict.replace('_', ' ')}" for one in standing.rules)
    return (
        f"{standing.model}: {standing.production} → {standing.canary}, {phase_words(standing)}, "
        f"{step_words(standing)}{f', {rules}' if rules else ''}; "
        f"`sluice rollout status {standing.model}`"
    )


def bar(share: float) -> str:
    """A share from 0 to 1 as a bar with its percentage."""
    share = min(max(share, 0.0), 1.0)
    # Rounded down: only what is proven looks full.
    full = int(share * _BAR)
    return f"{'█' * full}{'░' * (_BAR - full)} {int(share * 100):>3} %"


def number(value: float) -> str:
    """Three digits that count: `0.00123`, `1.62`, `104`."""
    if value and abs(value) < 0.001:
        return f"{value:.2g}"
    if abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def counts(events: int, units: int) -> str:
    """`12 / 1,203`."""
    return f"{events:,} / {units:,}" if units else "–"


def estimate(rule: RuleStanding) -> str:
    """The ratio (or difference, or value) with the ends of its interval; `–` for nothing."""
    sign = "+" if rule.metric in _DIFFERENCES and (rule.value or 0) > 0 else ""
    value = "" if rule.value is None else sign + number(rule.value)
    if rule.low is not None and rule.high is not None:
        return f"{value} [{number(rule.low)}, {number(rule.high)}]".lstrip()
    if rule.low:  # at least nothing says nothing
        return f"{value} [≥ {number(rule.low)}]".lstrip()
    if rule.high is not None:
        return f"{value} [≤ {number(rule.high)}]".lstrip()
    return value or "–"


def sums(standing: RolloutStanding) -> str:
    """What was counted altogether; empty if nothing was."""
    parts = []
    if standing.canary_requests or standing.production_requests:
        parts.append(
            f"{standing.canary} answered {standing.canary_requests:,} requests of "
            f"{standing.canary_keys:,} keys, {standing.production} "
            f"{standing.production_requests:,} of {standing.production_keys:,}"
        )
    if standing.copies:
        parts.append(f"{standing.copies:,} copies")
    if standing.labels:
        parts.append(f"{standing.labels:,} labels")
    return "; ".join(parts)


def happened(event: Event, steps: Sequence[str] = ()) -> str:
    """What an event was; `steps` is the plan in words."""
    words = _HAPPENED.get(event.kind, event.kind).format(step=event.step + 1)
    known = event.kind == "stepped" and event.step < len(steps)
    return f"{words}, {steps[event.step]}" if known else words


def changes(before: RolloutStanding | None, now: RolloutStanding) -> list[str]:
    """What is new since the last look, a line each."""
    lines = []
    if before is None or (before.phase, before.step) != (now.phase, now.step):
        reason = f" ({now.reason})" if now.reason else ""
        lines.append(f"{phase_words(now)}, {step_words(now)}{reason}")
    known = {rule.name: rule.verdict for rule in before.rules} if before is not None else {}
    for rule in now.rules:
        if rule.verdict != known.get(rule.name):
            told = rule.words or f"{estimate(rule)}"
            lines.append(f"{rule.name} is {rule.verdict.replace('_', ' ')}: {told}")
    if now.sample_ratio and (before is None or not before.sample_ratio):
        lines.append(f"shares: {now.sample_ratio}")
    return lines


# --- what a verb does to traffic ------------------------------------------------------------


def effect(verb: str, standing: RolloutStanding, *, full: bool = False) -> str:
    """What a verb would do to traffic, in a sentence or two."""
    canary, production = standing.canary, standing.production
    stays = f"{canary} keeps {_share(standing)}"
    match verb:
        case "promote":
            return _promotion(standing, full=full)
        case "pause":
            return (
                f"{stays}, and nothing goes further until `sluice rollout resume {standing.model}`."
                " A breach that aborts still does."
            )
        case "resume":
            return f"{stays} and goes on from {step_words(standing)}.{_waived(standing)}"
        case "approve":
            return f"{canary} goes on to {_next(standing)}."
        case "abort":
            return f"Every request goes to {production} within a second; {canary} gets none."
        case "retry":
            first = standing.steps[0] if standing.steps else "its first step"
            return (
                f"A new rollout of {canary} begins with {first}, although {standing.id} was "
                "stopped. Its evidence begins anew."
            )
        case _:
            raise ValueError(f"`{verb}` is no verb of rollouts")


def _promotion(standing: RolloutStanding, *, full: bool) -> str:
    unproven = [rule.name for rule in standing.rules if rule.verdict != "ok" and not rule.dry_run]
    without = f" Not proven: {', '.join(unproven)}." if unproven else ""
    if full:
        return (
            f"{standing.canary} answers every request from now on, {standing.production} none; "
            f"steps that are left are skipped.{without}"
        )
    return f"{standing.canary} goes on to {_next(standing)} now.{without}"


def _next(standing: RolloutStanding) -> str:
    coming = standing.step + 1
    if standing.phase == "pending":
        coming = 0
    if coming >= len(standing.steps):
        return "every request"
    return f"step {coming + 1} of {len(standing.steps)}, {standing.steps[coming]}"


def _share(standing: RolloutStanding) -> str:
    if standing.weight:
        return f"{standing.weight:g} % of keys"
    return f"copies of {standing.shadow:g} % of requests" if standing.shadow else "no traffic"


def _waived(standing: RolloutStanding) -> str:
    bad = [rule.name for rule in standing.rules if rule.verdict == "regressed"]
    return f" What paused it ({', '.join(bad)}) pauses it no more." if bad else ""
