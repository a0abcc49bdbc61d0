"""`traffic` of a model: which version answers whom while no rollout decides it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from serving.config.section import Name, Percent, Section, Share
from serving.config.units import Seconds

__all__ = [
    "Assignment",
    "Canary",
    "Fallback",
    "Override",
    "Shadow",
    "TrafficConfig",
]


class Canary(Section, frozen=True, kw_only=True):
    """A version that answers a share of the traffic."""

    version: Name
    """One of `versions`."""

    weight: Percent
    """Percent of keys. Raising it never moves a key back to production."""


class Shadow(Section, frozen=True, kw_only=True):
    """A version that sees copies and whose answers nobody waits for."""

    version: Name
    """One of `versions`."""

    percent: Percent = 100.0
    """Percent of requests copied."""


class Assignment(Section, frozen=True, kw_only=True):
    """What decides which version a request gets."""

    key: str | None = None
    """Entity input whose value sticks to a version. A request of several rows follows its first."""

    header: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$")] | None = None
    """Request header (gRPC metadata key) that holds the key instead."""

    salt: str = ""
    """Change it to draw a fresh cohort. Empty: the model's name."""

    on_missing_key: Literal["random", "production", "reject"] = "random"
    """What happens to a request without the key."""


class Override(Section, frozen=True, kw_only=True):
    """Requests whose version is not drawn: by a header, by who calls, or by whom they are about."""

    header: Annotated[str, Meta(pattern=r"^[a-z0-9-]+$")] = "x-sluice-version"
    """Header (gRPC metadata key) whose value names a version."""

    roles: Annotated[list[Literal["infer", "operator", "admin"]], Meta(min_length=1)] = (
        msgspec.field(default_factory=lambda: ["operator"])
    )
    """Who may use the header. Anybody else is answered 403."""

    tenants: list[Name] = []
    """Instead of a header: callers, by the `tenant` of their token."""

    entities: list[str | int] = []
    """Instead of a header: assignment keys."""

    version: Name | None = None
    """What those callers or keys get. Absent: production."""

    reason: str = ""
    """Why, for people."""

    analysed: bool = False
    """Whether a rollout counts these requests all the same. Nobody drew lots for them, so they may
    tilt the comparison."""


class Fallback(Section, frozen=True, kw_only=True):
    """What becomes of a request that the canary failed."""

    on_canary_error: Literal["none", "production"] = "none"
    """`production`: it is asked once more, of production, while the deadline allows it. The failure
    still counts against the canary."""

    budget: Share = 0.1
    """Share of a worker's requests to this model that may be asked twice, so that a canary that
    fails does not double production's load."""

    reserve: Seconds | None = None
    """Time kept for the second try: a canary that has not answered so long before the deadline is
    given up. Absent: a third of the deadline."""


class TrafficConfig(Section, frozen=True, kw_only=True):
    """Which version answers whom."""

    production: Name
    """The version that answers unless something below says otherwise."""

    canary: Canary | None = None
    """A second version and its share."""

    shadow: list[Shadow] = []
    """Versions that get copies, after the answer and on idle capacity only."""

    assignment: Assignment = Assignment()
    """Who sticks to what."""

    overrides: list[Override] = []
    """Requests whose version is not drawn; first match wins."""

    fallback: Fallback = Fallback()
    """What becomes of a request that the canary failed."""
