"""How a rollout stands: what each rule has seen, what that proves, and what is still needed."""

from typing import Literal

import msgspec

from serving.rollout.state import Phase

__all__ = ["RolloutStanding", "RuleStanding", "Verdict"]

Verdict = Literal["regressed", "ok", "undecided", "no_data"]
"""`regressed`: a breach is proven. `ok`: `prove` is met, or there is none and nothing is breached.
`undecided`: neither. `no_data`: nothing to judge by."""


class RuleStanding(msgspec.Struct, kw_only=True):
    """One rule. Ratios are canary to production; None where nothing can be said."""

    name: str
    metric: str
    test: str
    verdict: Verdict
    dry_run: bool = False
    canary_events: int = 0
    production_events: int = 0
    canary_units: int = 0
    """Keys (requests, where they have none) that could have had the event."""

    production_units: int = 0
    unit: Literal["keys", "requests", "copies", "labels"] = "keys"
    value: float | None = None
    """The ratio of rates; for losses the difference of means; for `threshold` the value."""

    low: float | None = None
    high: float | None = None
    """Ends of its confidence sequence, valid at every look."""

    e_value: float = 1.0
    """Evidence for a breach; at `bound` it is proven."""

    bound: float = 0.0
    proof: float | None = None
    """Evidence for `prove`, as a share of what is needed, by logarithm, from 0 to 1."""

    needed_events: int | None = None
    """Events still needed for the proof if the versions are alike."""

    eta: float | None = None
    """Seconds until then at the present rate."""

    action: str = ""
    """What a breach does: `abort` or `pause`."""

    words: str = ""
    """In one sentence."""


class RolloutStanding(msgspec.Struct, kw_only=True):
    """A whole rollout, as `GET /api/v1/rollouts/{model}` answers it."""

    id: str
    model: str
    canary: str
    production: str
    phase: Phase
    step: int
    """From 0; `steps` says what each is."""

    steps: list[str]
    """Each step in words: `shadow 25 %`, `weight 5 %`, `approval of fraud-ml`."""

    revision: int
    began: float
    step_began: float
    weight: float
    shadow: float
    reason: str = ""
    rules: list[RuleStanding] = []
    canary_requests: int = 0
    production_requests: int = 0
    canary_keys: int = 0
    production_keys: int = 0
    copies: int = 0
    labels: int = 0
    excluded: dict[str, list[int]] = {}
    """By reason: requests of canary and production that do not count."""

    sample_ratio: str = ""
    """Whether the shares are as they were drawn, in words; empty: they are."""

    waiting_for: list[str] = []
    """What the step still lacks, in words."""

    ends_by: float | None = None
    """When `bake.max` is over, seconds since 1970."""

    next_step_at: float | None = None
    """When the next step can begin at the earliest, seconds since 1970; None: nobody can tell."""

    lost: dict[str, int] = {}
    """Evidence that was lost, by reason."""
