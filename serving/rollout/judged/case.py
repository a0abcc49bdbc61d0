"""One rule and what it may spend; and the numbers and words that every kind of rule needs."""

import math
from typing import Final, Literal

import msgspec

from serving.config.schema import Rule
from serving.config.snapshot import RolloutTraffic
from serving.rollout.looks import RuleLook
from serving.rollout.standing import RuleStanding, Verdict

__all__ = ["Case", "between", "e_value", "finite", "number", "reached"]

_LARGEST_LOG: Final = 700.0


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that is to be judged."""

    rule: Rule
    alpha: float
    """The rollout's: for proofs."""

    share: float
    """What a breach of this rule may spend of it."""

    look: RuleLook
    traffic: RolloutTraffic | None
    action: str
    dry_run: bool

    @property
    def rho(self) -> float | None:
        """Probability of the canary now; None: nothing is drawn."""
        weight = self.traffic.weight if self.traffic is not None else 0.0
        return weight / 100 if 0 < weight < 100 else None

    @property
    def tolerance(self) -> float:
        """Ratio that is still fine; 1.0 if the plan does not say."""
        return self.rule.tolerance if self.rule.tolerance is not None else 1.0

    def standing(
        self,
        verdict: Verdict,
        words: str,
        *,
        log_e: float = 0.0,
        canary: tuple[int, int] = (0, 0),
        production: tuple[int, int] = (0, 0),
        unit: Literal["keys", "requests", "copies", "labels"] = "keys",
    ) -> RuleStanding:
        """A standing with what is the same for all.

        Args:
            verdict: of the rule.
            words: why.
            log_e: evidence for a breach.
            canary: events and units.
            production: likewise.
            unit: what is counted.
        """
        relative = self.rule.test == "relative"
        return RuleStanding(
            name=self.rule.name,
            metric=self.rule.metric,
            test=self.rule.test,
            verdict=verdict,
            dry_run=self.dry_run,
            canary_events=canary[0],
            canary_units=canary[1],
            production_events=production[0],
            production_units=production[1],
            unit=unit,
            e_value=e_value(log_e) if relative else 1.0,
            bound=1 / self.share if relative else 0.0,
            action=self.action,
            words=words,
        )


def e_value(log_e: float) -> float:
    """From its logarithm, at most e⁷⁰⁰: what is written down is a number."""
    return math.exp(min(log_e, _LARGEST_LOG))


def reached(log_e: float, error: float) -> float:
    """Evidence as a share of what is needed, by logarithm, from 0 to 1."""
    return min(1.0, max(0.0, log_e / -math.log(error)))


def finite(value: float | None) -> float | None:
    """A number that can be written down, or None."""
    return value if value is not None and math.isfinite(value) else None


def number(value: float) -> str:
    """Three digits that matter: `1.83`, `0.0123`, `410`."""
    if value and abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def between(low: float | None, high: float | None) -> str:
    """An interval in words; one end may not be known."""
    if low is None:
        return f"below {number(high)}" if high is not None else "nothing bounds it yet"
    if high is None:
        return f"above {number(low)}" if low else "nothing bounds it yet"
    return f"between {number(low)} and {number(high)}"
