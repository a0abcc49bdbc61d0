import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import model_kit
import msgspec
import numpy as np
import onnx_models
import pytest

from serving import metrics
from serving.clock import SystemClock
from serving.config.schema import ServeConfig
from serving.errors import DeadlineExceeded, InvalidArtifact, ModelNotReady
from serving.upstream.inline import InlineUpstream

BOUND = 30.0


class Kit:
    """Makes upstreams over a real clock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = SystemClock()
        self.metrics = metrics.MetricsFile(directory / "numbers")
        self.made: list[InlineUpstream] = []

    def upstream(self, model: bytes, **serve: object) -> InlineUpstream:
        """Make one that is not loaded yet."""
        staged = model_kit.staged(self.directory, model)
        config = msgspec.convert(serve, ServeConfig)
        self.made.append(InlineUpstream("m", "v1", staged, config, self.metrics, self.clock))
        return self.made[-1]


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    """Provide a kit and close what it made."""
    made = Kit(tmp_path)
    yield made
    for one in made.made:
        await asyncio.wait_for(one.close(), BOUND)
    made.metrics.close()


async def test_it_is_ready_only_after_it_was_loaded(kit: Kit) -> None:
    """Until then requests are told so."""
    upstream = kit.upstream(onnx_models.doubler())
    assert not upstream.ready()
    with pytest.raises(ModelNotReady, match="'m' version 'v1' is not loaded yet"):
        upstream.infer(model_kit.row(1), rows=1, outputs=(), deadline=float("inf"))

    await upstream.load()

    assert upstream.ready()


async def test_a_version_that_was_closed_while_loading_stays_closed(kit: Kit) -> None:
    """A route table that no longer wants it must not find it coming back."""
    upstream = kit.upstream(onnx_models.doubler())
    loading = asyncio.ensure_future(upstream.load())
    await asyncio.sleep(0)

    await upstream.close()

    with pytest.raises(ModelNotReady, match="has been unloaded"):
        await asyncio.wait_for(loading, BOUND)
    assert not upstream.ready()


async def test_a_file_that_does_not_load_leaves_it_not_ready(kit: Kit) -> None:
    """The reason is raised where loading was asked for."""
    upstream = kit.upstream(onnx_models.doubler())
    [staged] = (kit.directory / "artifacts").iterdir()
    staged.unlink()

    with pytest.raises(InvalidArtifact):
        await upstream.load()

    assert not upstream.ready()


async def test_several_versions_load_at_the_same_time(kit: Kit) -> None:
    """They take turns in the loader thread."""
    versions = [kit.upstream(onnx_models.linear(seed=seed)) for seed in range(4)]

    await asyncio.gather(*[one.load() for one in versions])

    assert all(one.ready() for one in versions)


async def test_a_runaway_request_costs_itself_and_is_ended(kit: Kit) -> None:
    """2⁶² steps end at the deadline; the loop stays free, and the next request is answered."""
    upstream = kit.upstream(onnx_models.patience())
    await upstream.load()

    def send(steps: int, within: float) -> "asyncio.Future[model_kit.Any]":
        return upstream.infer(
            {"X": np.array([[steps]])},
            rows=1,
            outputs=("Y",),
            deadline=kit.clock.monotonic() + within,
        )

    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(send(2**62, 0.05), BOUND)
    got = await asyncio.wait_for(send(3, BOUND), BOUND)

    assert got.outputs[0].tolist() == [[3]]


async def test_its_thread_ends_with_it_and_never_holds_up_the_process(kit: Kit) -> None:
    """A version whose runs are long has one thread of its own, a daemon, until it is closed."""
    upstream = kit.upstream(onnx_models.slow(10))
    await upstream.load()
    before = set(threading.enumerate())
    await upstream.infer(
        model_kit.row(1), rows=1, outputs=("Y",), deadline=kit.clock.monotonic() + BOUND
    )
    [thread] = [one for one in set(threading.enumerate()) - before if "m-v1" in one.name]

    await upstream.close()
    await asyncio.to_thread(thread.join, BOUND)

    assert thread.daemon
    assert not thread.is_alive()


async def test_its_numbers_carry_model_and_version(kit: Kit) -> None:
    """Batches are counted under the names in the configuration."""
    upstream = kit.upstream(onnx_models.doubler(), max_batch_size=8)
    await upstream.load()

    await upstream.infer(
        model_kit.row(1, 2), rows=2, outputs=("Y",), deadline=kit.clock.monotonic() + BOUND
    )

    samples = metrics.read(kit.metrics.path)
    assert samples["sluice_batches_total", ("m", "v1", "2")] == [1.0]
