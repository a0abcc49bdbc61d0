"""Counts of a rollout by hand, for tests of what is concluded from them."""

from dataclasses import dataclass, field

import msgspec

from serving.config.schema import RolloutConfig
from serving.config.snapshot_codec import dec_hook

__all__ = ["Counted", "plan"]


@dataclass
class Counted:
    """Everything that the judge reads, as plain values; pairs are of canary and production."""

    signal: dict[str, dict[float, tuple[int, int]]] = field(default_factory=dict)
    exposed: dict[float, tuple[int, int]] = field(default_factory=dict)
    requests: tuple[int, int] = (0, 0)
    keys: tuple[int, int] = (0, 0)
    shadow: dict[str, int] = field(default_factory=dict)
    seconds: tuple[list[float], list[float]] = ([], [])
    full: frozenset[str] = frozenset()
    keyed: bool = True

    def events(self, signal: str) -> dict[float, tuple[int, int]]:
        """By probability."""
        return self.signal.get(signal, {})

    def exposures(self) -> dict[float, tuple[int, int]]:
        """By probability."""
        return self.exposed

    def signals(self, rule: str) -> list[str]:
        """Those of a rule."""
        return sorted(one for one in self.signal if one.partition(":")[0] == rule)

    def crowded(self, rule: str) -> bool:
        """Whether its set is over half full."""
        return rule in self.full


def plan(*rules: dict[str, object], alpha: float = 0.05, **guardrails: object) -> RolloutConfig:
    """A plan of one canary step with these rules."""
    return msgspec.convert(
        {
            "canary": "v2",
            "steps": [{"weight": 5}, {"weight": 100}],
            "guardrails": {"alpha": alpha, "rules": list(rules), **guardrails},
        },
        RolloutConfig,
        dec_hook=dec_hook,
    )
