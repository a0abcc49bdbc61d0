"""What a rollout counts of a request that the canary failed and production answered."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pipeline_kit import Kit, keys

from serving.config.schema import Guardrails, RolloutConfig, Rule, Step
from serving.config.snapshot import RolloutTraffic
from serving.errors import InferenceFailed
from serving.rollout.wire import Share
from serving.worker.evidence.in_flight import Owner
from serving.worker.evidence.watch import Watch

PLAN = RolloutConfig(
    canary="v2",
    steps=[Step(weight=50.0), Step(weight=100.0)],
    guardrails=Guardrails(rules=[Rule(name="errors", metric="error_rate")]),
)
ROLLOUT = RolloutTraffic(
    id="m-r1",
    revision=1,
    canary="v2",
    production="v1",
    weight=50.0,
    salt="m-r1",
    counting=True,
)
FALLBACK = {"on_canary_error": "production", "budget": 1.0}


class Counting:
    """A pipeline in the middle of a rollout, and what is counted for it."""

    def __init__(self, folder: Path, **kit: Any) -> None:
        self.kit = Kit(folder, assignment={"key": "key"}, **{"fallback": FALLBACK, **kit})
        self._folder = folder

    async def serve(self) -> "Counting":
        """Begin."""
        plain = self.kit.snapshot()
        model = replace(plain.models["m"], rollout=PLAN)
        snapshot = replace(plain, models={"m": model}, rollouts={"m": ROLLOUT})
        table = self.kit.pipeline.table = await self.kit.loader.build(
            snapshot, self.kit.pipeline.table
        )
        owner = Owner(worker="w", incarnation="i", model="m", rollout=ROLLOUT.id)
        self.watch = Watch(model, ROLLOUT, folder=self._folder, owner=owner, slots=64)
        table.models["m"].watch = self.watch
        return self

    def share(self) -> Share:
        """What has been counted."""
        batch = self.watch.close_batch(1, 0.0)
        assert batch is not None
        [share] = batch.shares
        return share


def errors(share: Share) -> tuple[int, int]:
    """Keys with an error, of the canary and of production."""
    if "errors" not in share.events:
        return 0, 0
    arms = share.events["errors"]
    return len(arms.canary.cells) // 4, len(arms.production.cells) // 4


async def test_what_production_answered_for_the_canary_counts_against_it(tmp_path: Path) -> None:
    """Once, as an error of the canary; production's own requests are as they were."""
    counting = await Counting(tmp_path).serve()
    counting.kit.upstreams["v2"].failure = InferenceFailed("no")
    fell_back = 0
    for key in keys(8):
        fell_back += "fallback" in (await counting.kit.infer(key=key)).parameters

    share = counting.share()
    assert 0 < fell_back < 8
    assert share.requests == [fell_back, 8 - fell_back]
    assert errors(share) == (fell_back, 0)


@pytest.mark.parametrize(("fallback", "late"), [(FALLBACK, 1), ({}, 0)])
async def test_both_versions_are_late_by_the_same_measure(
    tmp_path: Path, fallback: dict[str, Any], late: int
) -> None:
    """Production that answers when a canary would have been given up counts as late as well.

    Or a canary as slow as production would seem worse than it. Without a fallback nobody is given
    up before the deadline.
    """
    counting = await Counting(tmp_path, fallback=fallback, serve={"deadline": "90ms"}).serve()
    kit = counting.kit
    route = kit.pipeline.table.models["m"].route
    key = next(one for one in keys(50) if route.assign(b"%d" % one).version == "v1")
    gate = kit.upstreams["v1"].release = asyncio.Event()
    asking = asyncio.create_task(kit.infer(key=key))
    await asyncio.sleep(0)
    kit.clock.advance(0.07)
    gate.set()

    assert (await asking).version == "v1"
    assert errors(counting.share()) == (0, late)
