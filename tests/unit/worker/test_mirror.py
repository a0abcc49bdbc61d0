"""Shadow copies at their bounds: too many, too old, failing, and the end."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_kit import Kit

from serving.errors import InferenceFailed, ModelNotReady, Overloaded
from serving.worker.mirror import CAPACITY, STALE_SECONDS, agree

SHADOW: dict[str, Any] = {"shadow": [{"version": "v3", "percent": 100}]}


@pytest.fixture
async def kit(tmp_path: Path) -> Kit:
    """A pipeline that mirrors every request to v3."""
    return await Kit(tmp_path, **SHADOW).serve()


def mirrored(kit: Kit, outcome: str) -> float:
    """Copies that ended so."""
    return kit.counted.get(("sluice_mirrored_total", ("m", "v3", outcome)), [0.0])[0]


async def test_the_oldest_copies_make_room(kit: Kit) -> None:
    """Past the bound the oldest copy is dropped and counted, and memory stays bounded."""
    for _ in range(CAPACITY + 3):
        await kit.infer()

    assert mirrored(kit, "dropped") == 3
    await kit.mirror.stop()
    assert mirrored(kit, "dropped") == CAPACITY + 3


async def test_a_copy_that_waited_too_long_is_dropped(kit: Kit) -> None:
    """A shadow sees fresh requests or none."""
    await kit.infer()
    kit.clock.advance(STALE_SECONDS + 0.1)
    await kit.infer()

    kit.mirror.start()
    await kit.until_counted("sluice_mirrored_total", "m", "v3", "answered")
    await kit.mirror.stop()

    assert mirrored(kit, "dropped") == 1
    assert len(kit.upstreams["v3"].calls) == 1


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (Overloaded("no room"), "dropped"),
        (InferenceFailed("no idea"), "failed"),
        (RuntimeError("nobody foresaw this"), "failed"),
        (asyncio.CancelledError(), "failed"),
    ],
)
async def test_a_shadow_that_fails_does_not_end_the_mirroring(
    kit: Kit, failure: BaseException, outcome: str
) -> None:
    """Whatever goes wrong with one copy is counted, and the next copy is sent."""
    kit.upstreams["v3"].failure = failure
    kit.mirror.start()
    await kit.infer()
    await kit.until_counted("sluice_mirrored_total", "m", "v3", outcome)
    kit.upstreams["v3"].failure = None

    await kit.infer()
    await kit.until_counted("sluice_mirrored_total", "m", "v3", "answered")
    await kit.mirror.stop()

    assert mirrored(kit, outcome) == 1


async def test_a_copy_for_a_version_that_was_closed_meanwhile_fails(kit: Kit) -> None:
    """It is counted; mirroring goes on once the version answers again."""
    await kit.infer()
    old = kit.upstreams["v3"]
    old.failure = ModelNotReady("model 'm' version 'v3' has been unloaded")
    old.is_ready = False

    kit.mirror.start()
    await kit.until_counted("sluice_mirrored_total", "m", "v3", "failed")
    old.failure, old.is_ready = None, True
    await kit.infer()
    await kit.until_counted("sluice_mirrored_total", "m", "v3", "answered")
    await kit.mirror.stop()


async def test_answers_are_compared(kit: Kit) -> None:
    """A shadow that says the same is told from one that does not."""
    kit.mirror.start()
    await kit.infer()
    await kit.until_counted("sluice_shadow_agreement_total", "m", "v3", "equal")
    kit.upstreams["v3"].compute = lambda x: x.sum(axis=1) + np.float32(1)

    await kit.infer()
    await kit.until_counted("sluice_shadow_agreement_total", "m", "v3", "different")
    await kit.mirror.stop()


async def test_a_mirror_that_never_started_can_be_stopped(kit: Kit) -> None:
    """A worker that ends before it served has nothing to drop."""
    await kit.mirror.stop()

    assert mirrored(kit, "dropped") == 0


def words(*values: bytes) -> np.ndarray[Any, Any]:
    """A BYTES tensor's array."""
    return np.array(values, object)


F32 = np.float32


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (np.array([1.0], F32), np.array([1.0], F32), True),
        (np.array([1.0], F32), np.array([1.000_001], F32), True),
        (np.array([1.0], F32), np.array([1.001], F32), False),
        (np.array([1.0], np.float64), np.array([1.0], F32), True),
        (np.array([np.nan], F32), np.array([np.nan], F32), True),
        (np.array([np.nan], F32), np.array([1.0], F32), False),
        (np.array([np.inf], F32), np.array([np.inf], F32), True),
        (np.array([np.inf], F32), np.array([-np.inf], F32), False),
        (np.array([[1.0]], F32), np.array([1.0], F32), False),
        (np.array([], F32), np.array([], F32), True),
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1, 3]), False),
        (np.array([True]), np.array([True]), True),
        (words(b"a", b"b"), words(b"a", b"b"), True),
        (words(b"a", b"b"), words(b"a", b"c"), False),
        (words(b"1"), np.array([1]), False),
    ],
)
def test_agreement_is_equality_up_to_rounding(ours: Any, theirs: Any, same: bool) -> None:
    """Numbers within 1e-5, NaN equal to NaN, everything else exactly."""
    assert agree(ours, theirs) is same
