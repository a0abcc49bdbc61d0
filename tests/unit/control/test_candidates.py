"""A candidate answers nobody before it was a shadow in a published revision."""

import logging
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from serving.clock import ManualClock
from serving.config.schema import (
    Canary,
    Configuration,
    GatewayConfig,
    ModelConfig,
    RolloutConfig,
    Shadow,
    Step,
    TrafficConfig,
    VersionSource,
)
from serving.config.snapshot import RolloutTraffic, StagedVersion
from serving.control.publishing.candidates import shadows, unseen
from serving.control.publishing.compile import Compiled
from serving.control.publishing.journal import Journal
from serving.control.publishing.publisher import Publisher
from serving.control.stores.store import MemoryStore
from serving.errors import InvalidConfig
from serving.types import Signature

STEADY = TrafficConfig(production="v1")
SHADOW = TrafficConfig(production="v1", shadow=[Shadow(version="v2")])
CANARY = TrafficConfig(production="v1", canary=Canary(version="v2", weight=5))
PROMOTED = TrafficConfig(production="v2")


def compiled(traffic: TrafficConfig, *, digest: str = "2", candidate: bool = True) -> Compiled:
    """v1, and v2, which came out of a training."""
    versions = {
        "v1": VersionSource(path="v1.onnx", sha256="1" * 64),
        "v2": VersionSource(path="v2.onnx", sha256=digest * 64, candidate=candidate),
    }
    signature = Signature(inputs=[], outputs=[], batchable=True)
    model = ModelConfig(model="demo", versions=versions, traffic=traffic)
    return Compiled(
        configuration=Configuration(gateway=GatewayConfig(), models={"demo": model}),
        staged={
            "demo": {
                name: StagedVersion(path=f"/{name}", sha256=source.sha256, signature=signature)
                for name, source in versions.items()
            }
        },
        warnings=[],
    )


class Bench:
    """A publisher; `apply` a configuration."""

    def __init__(self, folder: Path) -> None:
        self._next = compiled(STEADY)
        self.publisher = Publisher(
            store=MemoryStore(), journal=Journal(folder / "journal"),
            compile_directory=lambda _: self._next, gateway=GatewayConfig(), data=folder,
            clock=ManualClock(), log=logging.getLogger("test"),
        )  # fmt: skip

    async def apply(self, traffic: TrafficConfig, **more: Any) -> int:
        """Publish; the revision."""
        self._next = compiled(traffic, **more)
        return (await self.publisher.apply(Path("/x"), author="ada")).revision


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    """One that serves v1."""
    made = Bench(tmp_path)
    await made.publisher.start(Path("/x"))
    return made


@pytest.mark.parametrize(("traffic", "role"), [(CANARY, "canary"), (PROMOTED, "production")])
async def test_a_candidate_that_was_never_a_shadow_is_refused(
    bench: Bench, traffic: TrafficConfig, role: str
) -> None:
    """And the words say what to do."""
    with pytest.raises(InvalidConfig, match=f"cannot be {role}: put it under traffic.shadow"):
        await bench.apply(traffic)


async def test_after_it_was_a_shadow_it_goes_the_usual_way(bench: Bench) -> None:
    """Canary, then production; a later apply asks nothing any more."""
    revisions = [await bench.apply(one) for one in (SHADOW, CANARY, PROMOTED)]

    assert revisions == sorted(set(revisions))


async def test_another_file_under_the_name_was_no_shadow(bench: Bench) -> None:
    """It is the bytes that were looked at."""
    await bench.apply(SHADOW)

    with pytest.raises(InvalidConfig, match="never a shadow"):
        await bench.apply(PROMOTED, digest="3")


async def test_versions_that_are_no_candidates_are_asked_nothing(bench: Bench) -> None:
    """The rule is for what came out of a training."""
    assert await bench.apply(PROMOTED, candidate=False) == 2


def rolling(*steps: Step) -> tuple[dict[str, ModelConfig], Compiled]:
    """Models of which one has a rollout of v2 with these steps, and what was compiled."""
    made = compiled(STEADY)
    rollout = RolloutConfig(canary="v2", steps=list(steps))
    return {"demo": replace(made.configuration.models["demo"], rollout=rollout)}, made


def test_a_rollout_may_not_begin_with_a_candidates_answers() -> None:
    """Whose first step gives it a share before it was a shadow."""
    models, made = rolling(Step(weight=5), Step(weight=100))

    assert unseen(models, made.staged, None) == {
        ("demo", "2" * 64): (
            "models/demo.yaml: `v2` is a candidate and was never a shadow, so it cannot be canary: "
            "put it under traffic.shadow, apply that, and look at it first"
        )
    }


def test_a_rollout_that_begins_with_a_shadow_step_may() -> None:
    """That is what the rule wants."""
    models, made = rolling(Step(shadow=10), Step(weight=100))

    assert unseen(models, made.staged, None) == {}


def test_the_new_version_of_a_rollout_answers_already() -> None:
    """Naming it production in the file, when the rollout is done, asks nothing any more."""
    promoted = compiled(PROMOTED)
    done = RolloutTraffic(id="demo-r1", revision=9, canary="v2", production="v2")
    current = replace(
        compiled(STEADY).snapshot(revision=1, author="ada", at=0.0), rollouts={"demo": done}
    )

    assert unseen(promoted.configuration.models, promoted.staged, current) == {}


def test_copies_of_a_rollout_count_as_a_shadow() -> None:
    """Whatever the file says about it."""
    step = RolloutTraffic(id="demo-r1", revision=1, canary="v2", production="v1", shadow=10.0)
    snapshot = compiled(STEADY).snapshot(revision=1, author="ada", at=0.0)

    assert list(shadows(snapshot)) == []
    assert list(shadows(replace(snapshot, rollouts={"demo": step}))) == [("demo", "2" * 64)]
