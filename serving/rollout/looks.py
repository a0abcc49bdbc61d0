"""What earlier looks have left behind: how long a limit is exceeded, how fast events come.

Evidence itself needs no memory, it follows from the book. Losing this costs a threshold its
`sustained` once more, and a forecast ten minutes.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from serving.config.schema import RolloutConfig, Rule
from serving.rollout.evidence.relative_risk import total
from serving.rollout.evidence.threshold import Mark, Sustained, latest, marked, quantile, sustained

__all__ = ["EventBook", "Looks", "RuleLook", "beyond", "looked", "merged"]

_PACE_SECONDS: Final = 600.0
"""How far back the present rate of events looks."""

_PACE_STEP: Final = 5.0


class EventBook(Protocol):
    """What is read of a `serving.rollout.book.Book`; pairs are of canary and production."""

    def events(self, signal: str) -> dict[float, tuple[int, int]]:
        """By the canary's probability: events, each key once."""

    def exposures(self) -> dict[float, tuple[int, int]]:
        """By the canary's probability: keys that met their first version."""

    def signals(self, rule: str) -> list[str]:
        """Signals of a rule that were seen."""

    def crowded(self, rule: str) -> bool:
        """Whether its keys cannot be told apart any more."""

    @property
    def requests(self) -> tuple[int, int]:
        """Requests that count."""

    @property
    def keys(self) -> tuple[int, int]:
        """Keys that met them, and requests without one."""

    @property
    def keyed(self) -> bool:
        """Whether any request had a key."""

    @property
    def shadow(self) -> dict[str, int]:
        """Copies by outcome, each key once."""

    @property
    def seconds(self) -> tuple[list[float], list[float]]:
        """The latest sampled durations."""


class RuleLook(msgspec.Struct, frozen=True):
    """One rule's past."""

    pace: tuple[tuple[float, int], ...] = ()
    """Events of both versions up to a moment: (seconds since 1970, events), oldest first."""

    marks: tuple[Mark, ...] = ()
    """For `test: threshold`: what the canary had done up to a moment."""

    held: Sustained = Sustained()
    """For `test: threshold`."""

    value: float | None = None
    """For `test: threshold`: the value that is compared."""

    @property
    def rate(self) -> float:
        """Events a second lately; 0 if that is not known."""
        if len(self.pace) < 2:
            return 0.0
        (since, before), (until, after) = self.pace[0], self.pace[-1]
        return (after - before) / (until - since) if until > since else 0.0


Looks = Mapping[str, RuleLook]
"""By name of the rule."""


def looked(config: RolloutConfig, book: EventBook, looks: Looks, now: float) -> dict[str, RuleLook]:
    """Look once more.

    Args:
        config: the plan.
        book: what has been counted.
        looks: what the look before has returned; empty at first.
        now: seconds since 1970.
    """
    return {
        rule.name: (
            _watched(rule, book, looks.get(rule.name, RuleLook()), now)
            if rule.test == "threshold"
            else RuleLook(pace=_paced(looks.get(rule.name, RuleLook()).pace, rule, book, now))
        )
        for rule in config.guardrails.rules
    }


def merged(book: EventBook, rule: str) -> dict[float, tuple[int, int]]:
    """Events of all signals of a rule together."""
    both: dict[float, tuple[int, int]] = {}
    for signal in book.signals(rule):
        for rho, (canary, production) in book.events(signal).items():
            before = both.get(rho, (0, 0))
            both[rho] = before[0] + canary, before[1] + production
    return both


def beyond(rule: Rule, value: float) -> bool:
    """Whether a value is beyond what a threshold rule allows."""
    too_high = rule.at_most is not None and value > rule.at_most
    too_low = rule.at_least is not None and value < rule.at_least
    return too_high or too_low


def _paced(
    pace: tuple[tuple[float, int], ...], rule: Rule, book: EventBook, now: float
) -> tuple[tuple[float, int], ...]:
    events = sum(total(merged(book, rule.name)))
    if pace and (events < pace[-1][1] or now < pace[-1][0]):
        pace = ()  # another book, or another clock
    if len(pace) > 1 and now - pace[-2][0] < _PACE_STEP:
        pace = pace[:-1]
    pace = (*pace, (now, events))
    while len(pace) > 2 and now - pace[1][0] > _PACE_SECONDS:
        pace = pace[1:]
    return pace


def _watched(rule: Rule, book: EventBook, look: RuleLook, now: float) -> RuleLook:
    events, units = _counted(rule, book)
    marks = tuple(marked(look.marks, Mark(now, events, units), rule.min_samples))
    arrived = marks[-1].at
    value = _value(rule, book, marks)
    held = look.held
    if look.marks and arrived == look.marks[-1].at:
        return RuleLook(marks=marks, held=held, value=value)  # nothing came: nothing is sustained
    if look.marks and arrived - look.marks[-1].at > rule.sustained:
        held = Sustained()
    held = sustained(
        held,
        beyond=None if value is None else beyond(rule, value),
        now=arrived,
        seconds=float(rule.sustained),
    )
    return RuleLook(marks=marks, held=held, value=value)


def _counted(rule: Rule, book: EventBook) -> tuple[int, int]:
    """Events and requests of the canary alone."""
    if rule.metric == "shadow_agreement":
        agree, differ = (book.shadow.get(outcome, 0) for outcome in ("agree", "differ"))
        return agree, agree + differ
    return total(merged(book, rule.name))[0], book.requests[0]


def _value(rule: Rule, book: EventBook, marks: tuple[Mark, ...]) -> float | None:
    if rule.quantile is not None:
        enough = marks[-1].units - marks[0].units >= rule.min_samples
        return quantile(book.seconds[0], rule.quantile) if enough else None
    return latest(marks, rule.min_samples)
