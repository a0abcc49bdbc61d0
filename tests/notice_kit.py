"""Rollouts to tell of, and a `Notices` over a test's own folder, clock and receivers."""

from pathlib import Path
from typing import Any

import msgspec

from serving.clock import ManualClock
from serving.config.schema import RolloutConfig
from serving.config.snapshot_codec import dec_hook
from serving.control.outbound import Reach
from serving.control.rollouts.notices import Notices
from serving.rollout.standing import RolloutStanding, RuleStanding
from serving.rollout.state import Event, Kind

EVERYTHING = [
    "started", "advanced", "paused", "resumed", "approval_needed", "aborted", "completed",
    "inconclusive",
]  # fmt: skip
START = 1_700_000_000.0
SOURCE = "http://127.0.0.1:8002"
STEPS = [
    {"shadow": 25},
    {"weight": 5},
    {"approve": {"group": "fraud-ml", "timeout": "1h"}},
    {"weight": 100},
]


def plan(*targets: dict[str, Any]) -> RolloutConfig:
    """A plan whose targets hear of everything unless they say otherwise."""
    notify = [{"events": EVERYTHING, **target} for target in targets]
    written = {"canary": "v2", "steps": STEPS, "notify": notify}
    return msgspec.convert(written, RolloutConfig, dec_hook=dec_hook)


def happened(revision: int, kind: Kind = "paused", **fields: Any) -> Event:
    """An event, one second after the one before."""
    return Event(
        **{"revision": revision, "at": START + revision, "kind": kind, "who": "ada", **fields}
    )


def standing(**fields: Any) -> RolloutStanding:
    """A rollout in its second step."""
    rule = RuleStanding(
        name="errors", metric="error_rate", test="relative", verdict="regressed", value=3.2
    )
    told: dict[str, Any] = {
        "id": "demo-r1", "model": "demo", "canary": "v2", "production": "v1", "phase": "paused",
        "step": 1, "steps": ["shadow 25 %", "weight 5 %", "approval of fraud-ml", "weight 100 %"],
        "revision": 4, "began": START, "step_began": START, "weight": 5.0, "shadow": 0.0,
        "rules": [rule],
    }  # fmt: skip
    return RolloutStanding(**{**told, **fields})


def notices(folder: Path, clock: ManualClock, *, private: bool = True, **reach: Any) -> Notices:
    """As a control process has them whose data and configuration are in a folder."""
    return Notices(
        folder / "rollouts",
        data=folder,
        directory=lambda: folder,
        reach=lambda: Reach(loopback=private, private=private, **reach),
        source=lambda: SOURCE,
        clock=clock,
    )
