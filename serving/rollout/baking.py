"""What a step still lacks before the next one, and in which words evidence goes into an event."""

from collections.abc import Sequence
from typing import Final

import msgspec

from serving.config.schema import RolloutConfig, Step
from serving.config.units import Seconds
from serving.rollout.judge import learns_in
from serving.rollout.standing import RuleStanding
from serving.rollout.state import RolloutState

__all__ = [
    "SILENCE_SECONDS",
    "Facts",
    "Look",
    "evidence_of",
    "is_compared",
    "is_silent",
    "lacking",
    "samples_of",
    "spans",
    "step_of",
]

SILENCE_SECONDS: Final = 300.0
"""Without a request or a copy for so long a step neither ends nor counts as inconclusive.

Long enough for a service that is asked once a minute; short against `bake.min` of any plan that
means it.
"""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known beside the rules' standings. Counts are of the whole rollout."""

    now: float
    """Seconds since 1970."""

    samples: int = 0
    """Requests that count, of the new version."""

    production_samples: int = 0
    copies: int = 0
    """Shadow copies with an outcome."""

    keys: int = 0
    """Different keys that met the new version."""

    production_keys: int = 0
    labels: int = 0
    """Of the new version's predictions."""

    last_data: float | None = None
    """When something of this rollout was counted last; None: not since control started."""

    tripped: str = ""
    """The hard stop that a worker has hit, in words."""

    quarantined: str = ""
    """Why the new version is in quarantine."""

    not_ready: str = ""
    """Why the new version cannot answer everywhere."""

    split: str = ""
    """How the shares differ from what was drawn, in words; empty: they do not."""

    acknowledged: bool = False
    """Whether every worker that lives serves what the last event put in place."""

    store_up: bool = True
    workers: int = 1
    """Workers that report."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout at one moment: its plan, where it is, what its rules say, what else is known."""

    config: RolloutConfig
    state: RolloutState
    standings: Sequence[RuleStanding]
    facts: Facts

    @property
    def step(self) -> Step:
        """The step that it is at."""
        return step_of(self.config, self.state)


def step_of(config: RolloutConfig, state: RolloutState) -> Step:
    """The step that a rollout is at; the last one if the plan has become shorter."""
    return config.steps[min(state.step, len(config.steps) - 1)]


def is_compared(look: Look) -> bool:
    """Whether both versions get requests in this step, so that something must arrive for its end.

    At 100 % there is nobody to compare with, and an approval waits for a person.
    """
    step = look.step
    return step.approve is None and (step.shadow is not None or 0 < look.state.weight < 100)


def samples_of(look: Look) -> int:
    """Requests (in a shadow step: copies) of this step so far."""
    counted, facts = look.state.counted, look.facts
    if look.step.shadow is not None:
        return max(0, facts.copies - counted.get("copies", 0))
    return max(0, facts.samples - counted.get("samples", 0))


def is_silent(look: Look) -> bool:
    """Whether nothing has arrived for `SILENCE_SECONDS`, however that comes about."""
    state, facts = look.state, look.facts
    last = max(facts.last_data or 0.0, state.step_began, state.resumed_at)
    return facts.now - last > SILENCE_SECONDS


def lacking(look: Look) -> list[str]:
    """What the step still lacks, in words; empty: the next one may begin."""
    step, state, facts = look.step, look.state, look.facts
    if step.approve is not None:
        return [] if state.phase == "progressing" else [f"approval{_by(step.approve.group)}"]
    return [
        *_time(step, state, facts.now),
        *_counts(look),
        *_proofs(look),
        *([facts.not_ready] if facts.not_ready else ()),
    ]


def _by(group: str) -> str:
    return f" by {group}" if group else ""


def _time(step: Step, state: RolloutState, now: float) -> list[str]:
    left = step.bake.min - state.baked(now)
    return [f"{spans(left)} of `bake.min` {step.bake.min}"] if left > 0 else []


def _counts(look: Look) -> list[str]:
    bake, facts = look.step.bake, look.facts
    wanted = []
    if is_compared(look):
        what = "copies" if look.step.shadow is not None else "requests of the new version"
        # Time alone is no evidence: at least one has to come.
        wanted.append((what, samples_of(look), max(1, bake.min_samples)))
    wanted.append(("keys that met the new version", facts.keys, bake.min_keys))
    wanted.append(("labels of the new version's predictions", facts.labels, bake.require_labels))
    return [
        f"{need - got:,} more {what} ({got:,} of {need:,})"
        for what, got, need in wanted
        if got < need
    ]


def _proofs(look: Look) -> list[str]:
    """Proofs that are missing and can come in this step; one from an earlier step stays."""
    found = {standing.name: standing for standing in look.standings}
    guardrails, state = look.config.guardrails, look.state
    return [
        f"the proof of `{rule.name}`{_progress(found.get(rule.name))}"
        for rule in guardrails.rules
        if rule.prove is not None
        and rule.name not in guardrails.dry_run
        and learns_in(rule, weight=state.weight, shadow=state.shadow)
        and (rule.name not in found or found[rule.name].verdict != "ok")
    ]


def _progress(standing: RuleStanding | None) -> str:
    if standing is None or standing.verdict == "no_data":
        return " (no data)"
    return "" if standing.proof is None else f" ({standing.proof:.0%})"


def evidence_of(look: Look) -> dict[str, str]:
    """What an event rests on: the counts and each rule, in words and numbers."""
    facts, what = look.facts, "copies" if look.step.shadow is not None else "requests"
    told = {
        "requests": f"{facts.samples:,} of the new version, {facts.production_samples:,} of "
        f"production, {facts.keys:,} keys",
        "step": f"{samples_of(look):,} {what} in {spans(look.state.baked(facts.now))}",
    }
    if facts.copies:
        told["copies"] = f"{facts.copies:,}"
    if facts.labels:
        told["labels"] = f"{facts.labels:,}"
    return told | {standing.name: _rule(standing) for standing in look.standings}


def _rule(standing: RuleStanding) -> str:
    words: list[str] = [standing.verdict]
    if standing.value is not None:
        interval = ""
        if standing.low is not None and standing.high is not None:
            interval = f" ({standing.low:.4g} to {standing.high:.4g})"
        words.append(f"{standing.value:.4g}{interval}")
    if standing.bound:
        words.append(f"evidence {standing.e_value:.4g} of {standing.bound:.4g}")
    words.append(f"events {standing.canary_events:,} against {standing.production_events:,}")
    if standing.dry_run:
        words.append("dry run")
    return ", ".join(words)


def spans(seconds: float) -> str:
    """A time in words, to the second."""
    whole = max(0, round(seconds))
    return str(Seconds(float(whole))) if whole else "0s"
