"""Requests that are answered by a call: `Pipeline.begin`."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pipeline_kit import Kit, ScriptedUpstream, row

from serving.config.schema import ModelConfig
from serving.config.snapshot import StagedVersion
from serving.errors import DeadlineExceeded, InferenceFailed, ModelNotFound, Overloaded
from serving.types import Call, InferRequest, InferResponse
from serving.upstream import Inference, Waiter
from serving.worker.reply import Pending


class TellingUpstream(ScriptedUpstream):
    """Keeps whoever asks until the test tells them; refuses with `refusal` if there is one."""

    def __init__(self, compute: Any) -> None:
        super().__init__(compute)
        self.waiters: list[Waiter] = []
        self.refusal: Exception | None = None

    def answer(self, waiter: Waiter, feed: Any, **options: Any) -> None:
        """Note who asks."""
        del options
        if self.refusal is not None:
            raise self.refusal
        self.feed = feed
        self.waiters.append(waiter)

    def tell(self) -> None:
        """Answer the first who waits, unless it has left."""
        waiter = self.waiters.pop(0)
        if not waiter.done():
            waiter.set_result(Inference([self.compute(self.feed["X"])], 0.001, 0.002, 1))


class TellingKit(Kit):
    """A pipeline whose upstreams tell."""

    async def _load(self, config: ModelConfig, version: str, staged: StagedVersion) -> Any:
        del config, staged
        upstream = TellingUpstream(lambda x: x.sum(axis=1).astype(np.float32))
        self.upstreams[version] = upstream
        return upstream

    @property
    def telling(self) -> TellingUpstream:
        """Production's upstream."""
        upstream = self.upstreams["v1"]
        assert isinstance(upstream, TellingUpstream)
        return upstream

    def begin(self, reply: "Told", **fields: Any) -> Pending:
        """Ask for the sum of one row."""
        request = InferRequest(**{"model": "m", "version": "", "inputs": [row(1, 2)], **fields})
        return self.pipeline.begin(request, self.call(), reply)

    def outcomes(self) -> dict[str, float]:
        """Requests for v1 by code."""
        return {
            labels[-1]: values[0]
            for (name, labels), values in self.counted.items()
            if name == "sluice_requests_total" and values[0]
        }


class Told:
    """Notes what it is told; `then` is called each time."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.responses: list[InferResponse] = []
        self.errors: list[Exception] = []
        self.ended = asyncio.Event()
        self._then = then

    def answered(self, request: InferRequest, call: Call, response: InferResponse) -> None:
        """Note the answer."""
        del request, call
        self.responses.append(response)
        self.ended.set()
        self._then()

    def failed(self, error: Exception) -> None:
        """Note the error."""
        self.errors.append(error)
        self.ended.set()
        self._then()


async def serving(folder: Path, **traffic: Any) -> TellingKit:
    """A kit with its table."""
    kit = TellingKit(folder, **traffic)
    await kit.serve()
    return kit


async def test_the_answer_comes_with_the_inference(tmp_path: Path) -> None:
    """Nothing is between the batch and who has asked: told, counted, its place given back."""
    kit, told = await serving(tmp_path), Told()
    kit.begin(told)

    kit.telling.tell()

    [response] = told.responses
    np.testing.assert_array_equal(response.outputs[0].data, [3.0])
    assert kit.outcomes() == {"OK": 1.0}
    assert kit.pipeline.admission.in_flight == 0


async def test_what_is_refused_at_once_is_raised(tmp_path: Path) -> None:
    """Nobody is told of it, it is counted, and no place is kept."""
    kit, told = await serving(tmp_path), Told()
    kit.telling.refusal = Overloaded("busy", reason="deadline")

    with pytest.raises(Overloaded):
        kit.begin(told)

    assert (told.responses, told.errors) == ([], [])
    assert kit.counted["sluice_rejected_total", ("m", "deadline")] == [1.0]
    assert kit.pipeline.admission.in_flight == 0


async def test_a_failure_is_told_outside_the_queue(tmp_path: Path) -> None:
    """Who ends a request may be in the middle of its queue, so the asker hears of it later."""
    kit, told = await serving(tmp_path), Told()
    kit.begin(told)

    kit.telling.waiters[0].set_exception(DeadlineExceeded("too late"))

    assert kit.telling.waiters[0].done()
    assert told.errors == []
    await told.ended.wait()
    assert [type(error) for error in told.errors] == [DeadlineExceeded]
    assert kit.outcomes() == {"DEADLINE_EXCEEDED": 1.0}
    assert kit.pipeline.admission.in_flight == 0


async def test_who_has_given_up_is_not_told(tmp_path: Path) -> None:
    """Its place in the batch is free at once, and it is counted as one who left."""
    kit, told = await serving(tmp_path), Told()
    pending = kit.begin(told)

    pending.cancel()
    kit.telling.tell()

    assert (told.responses, told.errors) == ([], [])
    assert kit.outcomes() == {"CANCELLED": 1.0}
    assert kit.pipeline.admission.in_flight == 0


async def test_who_gives_up_after_a_failure_is_counted_once(tmp_path: Path) -> None:
    """Between a failure and its being told there is a turn of the loop, in which one may leave."""
    kit, told = await serving(tmp_path), Told()
    pending = kit.begin(told)
    kit.telling.waiters[0].set_exception(InferenceFailed("it failed"))

    pending.cancel()
    await asyncio.sleep(0)

    assert (told.responses, told.errors) == ([], [])
    assert kit.outcomes() == {"CANCELLED": 1.0}
    assert kit.pipeline.admission.in_flight == 0


async def test_who_is_told_may_ask_again(tmp_path: Path) -> None:
    """A pipelining client's next request begins while its last is being answered."""
    kit, second = await serving(tmp_path), Told()
    kit.begin(Told(then=lambda: kit.begin(second)))

    kit.telling.tell()
    kit.telling.tell()

    assert len(second.responses) == 1
    assert kit.outcomes() == {"OK": 2.0}


async def test_an_asker_that_breaks_does_not_reach_the_batch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever gives out the answers goes on to the next."""

    def break_down() -> None:
        raise RuntimeError("a bug")

    kit = await serving(tmp_path)
    kit.begin(Told(then=break_down))

    kit.telling.tell()

    assert "could not be handed over" in caplog.text
    assert kit.pipeline.admission.in_flight == 0


async def test_unknown_models_are_told_of(tmp_path: Path) -> None:
    """What needs a task fails there."""
    kit, told = await serving(tmp_path), Told()
    kit.begin(told, model="nobody")

    await told.ended.wait()

    assert [type(error) for error in told.errors] == [ModelNotFound]


async def test_a_canary_that_can_fall_back_has_a_task(tmp_path: Path) -> None:
    """There may be a second try, which the batch of the first cannot wait for."""
    kit = await serving(
        tmp_path,
        canary={"version": "v2", "weight": 50},
        fallback={"on_canary_error": "production"},
    )
    told = Told()

    kit.begin(told)

    await told.ended.wait()
    assert kit.telling.waiters == []
    assert len(told.responses) == 1


async def test_a_request_in_a_task_can_be_given_up(tmp_path: Path) -> None:
    """Before it has begun as well: no place is kept, and nobody is told."""
    kit = await serving(
        tmp_path,
        canary={"version": "v2", "weight": 50},
        fallback={"on_canary_error": "production"},
    )
    told = Told()

    task = kit.begin(told).cancel()

    assert task is not None
    await asyncio.wait([task])
    assert (told.responses, told.errors) == ([], [])
    assert kit.pipeline.admission.in_flight == 0
