"""Rollouts for people: steps, rules, and what is waited for."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.cli.output import plain_table
from serving.cli.rollout.words import (
    bar,
    counts,
    estimate,
    happened,
    headline,
    is_over,
    phase_words,
    step_words,
    sums,
)
from serving.cli.span import age
from serving.control.admin.answers import RolloutEvents
from serving.rollout.standing import RolloutStanding, RuleStanding

__all__ = ["history_table", "overview_table", "standing_view"]

_COLOURS: Final = {
    "ok": "green",
    "done": "green",
    "progressing": "cyan",
    "promoting": "cyan",
    "undecided": "yellow",
    "paused": "yellow",
    "awaiting_approval": "yellow",
    "regressed": "bold red",
    "aborting": "bold red",
    "aborted": "bold red",
    "no_data": "dim",
}
_GRAVITY: Final = ("regressed", "no_data", "undecided", "ok")
_EXPLAINED: Final = ("paused", "aborting", "aborted", "promoting")
"""Phases of which a person wants to know why."""

_NOTHING: Final = "–"


def standing_view(standing: RolloutStanding, now: float) -> RenderableType:
    """One rollout, most general first. `now` in seconds since 1970."""
    head = Text(headline(standing, now), style="bold")
    parts: list[RenderableType] = [head]
    if standing.reason and standing.phase in _EXPLAINED:
        parts.append(Text(f"{phase_words(standing)}: {standing.reason}", _colour(standing.phase)))
    parts += ["", _steps(standing, now)]
    if standing.rules:
        parts += ["", _rules(standing.rules)]
        parts += [_spoken(rule) for rule in standing.rules if rule.words]
    if remarks := _remarks(standing, now):
        parts += ["", remarks]
    return Group(*parts)


def overview_table(standings: Iterable[RolloutStanding], now: float) -> Table:
    """Every model's last rollout, a line each."""
    table = plain_table("model", "from", "to", "phase", "step", "weight", "verdict", "for")
    for one in standings:
        worst = min((rule.verdict for rule in one.rules), key=_GRAVITY.index, default="")
        table.add_row(
            one.model,
            one.production,
            one.canary,
            _word(one.phase),
            step_words(one),
            f"{one.weight:g} %" if one.weight else f"shadow {one.shadow:g} %",
            _word(worst) if worst else _NOTHING,
            age(now - one.began),
        )
    return table


def history_table(pasts: Iterable[RolloutEvents]) -> RenderableType:
    """Rollouts, newest first, and in each what happened, oldest first."""
    parts: list[RenderableType] = []
    for past in pasts:
        events = sorted(past.events, key=lambda one: one.revision)
        steps = next((event.arms.steps for event in events if event.arms is not None), [])
        table = plain_table("revision", "when", "what", "who", "why")
        known: dict[str, str] = {}
        for event in events:
            why = Text(event.reason or _NOTHING)
            for name, evidence in event.evidence.items():
                if known.get(name) != evidence:  # what has not changed stands above
                    why.append(f"\n{name}: {evidence}", style="dim")
            known |= event.evidence
            table.add_row(
                str(event.revision), _moment(event.at), Text(happened(event, steps)), event.who, why
            )
        parts += ["", Text(past.id, style="bold"), table]
    return Group(*parts[1:])


def _steps(standing: RolloutStanding, now: float) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for place, words in enumerate(standing.steps):
        mark, told = _step(standing, place, now)
        table.add_row(mark, Text(words), told)
    return table


def _step(standing: RolloutStanding, place: int, now: float) -> tuple[Text, Text]:
    if standing.phase == "done" or place < standing.step:
        return Text("✓", style="green"), Text("")
    if place > standing.step or standing.phase == "pending":
        return Text("·", style="dim"), Text("")
    if standing.phase in ("aborting", "aborted"):
        return Text("✗", style="bold red"), Text(phase_words(standing), style="bold red")
    return Text("▶", style="cyan"), Text(f"for {age(now - standing.step_began)}")


def _rules(rules: Iterable[RuleStanding]) -> Table:
    table = plain_table("rule", "verdict", "canary", "production", "of", "ratio", "proof", "ETA")
    for column in table.columns:  # on a narrow terminal the interval goes below its ratio
        column.no_wrap = column.header != "ratio"
        column.overflow = "fold"
    for rule in rules:
        verdict = _word(rule.verdict)
        if rule.dry_run:
            verdict.append(" (dry run)", style="dim")
        table.add_row(
            rule.name,
            verdict,
            counts(rule.canary_events, rule.canary_units),
            counts(rule.production_events, rule.production_units),
            rule.unit,
            estimate(rule),
            bar(rule.proof) if rule.proof is not None else _NOTHING,
            age(rule.eta) if rule.eta is not None else _NOTHING,
        )
    return table


def _spoken(rule: RuleStanding) -> Text:
    return Text(f"{rule.name}: {rule.words}", style="red" if rule.verdict == "regressed" else "dim")


def _remarks(standing: RolloutStanding, now: float) -> Table | None:
    rows: list[tuple[str, str]] = []
    if not is_over(standing):
        rows += [
            ("waits for" if not place else "", words)
            for place, words in enumerate(standing.waiting_for)
        ]
        if standing.next_step_at is not None and standing.next_step_at > now:
            rows.append(("next step", f"in {age(standing.next_step_at - now)} at the earliest"))
        if standing.ends_by is not None:
            left = standing.ends_by - now
            rows.append(("time is up", f"in {age(left)}" if left > 0 else "now"))
    if counted := sums(standing):
        rows.append(("counted", counted))
    if standing.sample_ratio:
        rows.append(("shares", standing.sample_ratio))
    if standing.excluded:
        told = ", ".join(
            f"{reason.replace('_', ' ')} {' / '.join(f'{count:,}' for count in pair)}"
            for reason, pair in sorted(standing.excluded.items())
        )
        rows.append(("left out", f"{told} (requests of {standing.canary} / {standing.production})"))
    if standing.lost:
        told = ", ".join(
            f"{reason.replace('_', ' ')} {count:,}"
            for reason, count in sorted(standing.lost.items())
        )
        rows.append(("lost", told))
    if not rows:
        return None
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, words in rows:
        table.add_row(Text(name, style="bold"), Text(words))
    return table


def _word(word: str) -> Text:
    return Text(word.replace("_", " "), style=_colour(word))


def _colour(word: str) -> str:
    return _COLOURS.get(word, "")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
