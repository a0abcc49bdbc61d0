"""A candidate answers nobody before it was a shadow in a published revision."""

import logging
from pathlib import Path
from typing import Any

import pytest

from serving.clock import ManualClock
from serving.config.schema import (
    Canary,
    Configuration,
    GatewayConfig,
    ModelConfig,
    Shadow,
    TrafficConfig,
    VersionSource,
)
from serving.config.snapshot import StagedVersion
from serving.control.compile import Compiled
from serving.control.journal import Journal
from serving.control.publisher import Publisher
from serving.control.store import MemoryStore
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
