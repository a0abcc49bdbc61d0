"""What the canary fails is asked once more, of production; and what is not."""

import asyncio
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_kit import Kit, ScriptedUpstream

from serving.errors import (
    DeadlineExceeded,
    FeaturesUnavailable,
    InferenceFailed,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    ServingError,
)
from serving.recording.offer import Offer
from serving.recording.record import PredictionRecord
from serving.types import Call, InferRequest
from serving.upstream import Inference
from serving.worker.fallback import BURST, Budget, given_up_at
from serving.worker.trip import Trip, spans

PLAN: dict[str, Any] = {
    "canary": {"version": "v2", "weight": 100},
    "fallback": {"on_canary_error": "production", "budget": 0.1},
}
FAILED = InferenceFailed("the canary says no")


async def serving(folder: Path, failure: BaseException | None = FAILED, **plan: Any) -> Kit:
    """A pipeline whose canary gets everything and fails."""
    kit = await Kit(folder, serve={"deadline": "90ms"}, **{**PLAN, **plan}).serve()
    kit.upstreams["v2"].failure = failure
    return kit


def outcomes(kit: Kit) -> dict[str, float]:
    """What became of what the canary failed."""
    return {
        labels[-1]: value[0]
        for (family, labels), value in kit.counted.items()
        if family == "sluice_fallback_total"
    }


def rows(kit: Kit) -> list[PredictionRecord]:
    """The newest records, the oldest of them first."""
    return kit.pipeline.recorder.recent()[::-1]


async def test_production_answers_and_the_answer_says_so(tmp_path: Path) -> None:
    """The caller gets production's outputs, version and role, and learns who failed."""
    kit = await serving(tmp_path)

    response = await kit.infer()

    np.testing.assert_array_equal(response.outputs[0].data, [3.0])
    assert response.version == "v1"
    assert response.parameters["model_role"] == "production"
    assert response.parameters["fallback"] == "v2"
    assert str(response.parameters["prediction_id"]).endswith("~m~v1~production")


async def test_an_answer_of_the_canary_is_left_alone(tmp_path: Path) -> None:
    """Nobody else is asked, and nothing is said."""
    kit = await serving(tmp_path, None)

    response = await kit.infer()

    assert (response.version, response.parameters["model_role"]) == ("v2", "canary")
    assert "fallback" not in response.parameters
    assert kit.upstreams["v1"].calls == []


@pytest.mark.parametrize(
    "failure",
    [
        InferenceFailed("it failed"),
        ModelNotReady("it is not ready"),
        Overloaded("its queue is full", reason="queue_full"),
        DeadlineExceeded("it took too long"),
        RuntimeError("nobody thought of this"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_whatever_is_the_canarys_fault_is_asked_again(
    tmp_path: Path, failure: Exception
) -> None:
    """The caller never sees it."""
    kit = await serving(tmp_path, failure)

    assert (await kit.infer()).version == "v1"
    assert outcomes(kit) == {"answered": 1}


@pytest.mark.parametrize(
    "failure",
    [InvalidRequest("no such input"), FeaturesUnavailable("the store is silent")],
    ids=lambda failure: type(failure).__name__,
)
async def test_what_is_not_the_canarys_fault_is_not(tmp_path: Path, failure: ServingError) -> None:
    """Production would say the same."""
    kit = await serving(tmp_path, failure)

    with pytest.raises(type(failure)):
        await kit.infer()
    assert kit.upstreams["v1"].calls == []
    assert outcomes(kit) == {}


@pytest.mark.parametrize("outputs", ["none", "short"])
async def test_an_answer_of_the_wrong_shape_is_a_failure(tmp_path: Path, outputs: str) -> None:
    """Other rows than were asked for are no answer."""
    kit = await serving(tmp_path, None)
    wrong = np.zeros((0,) if outputs == "none" else (2,), np.float32)
    kit.upstreams["v2"].compute = lambda _: wrong

    assert (await kit.infer()).version == "v1"


async def test_a_canary_that_is_not_loaded_is_asked_of_production(tmp_path: Path) -> None:
    """A request for it does not fail because of that."""
    kit = await serving(tmp_path)
    kit.upstreams["v2"].is_ready = False

    assert (await kit.infer()).version == "v1"


@pytest.mark.parametrize("traffic", [{}, {"overrides": [{"entities": [7], "version": "v2",
                                                         "analysed": True}],
                                          "assignment": {"key": "key"}}])  # fmt: skip
async def test_who_was_put_on_the_canary_gets_its_failure(
    tmp_path: Path, traffic: dict[str, Any]
) -> None:
    """By name or by an override: that is the version they want to know about."""
    kit = await serving(tmp_path, **traffic)

    with pytest.raises(InferenceFailed, match="says no"):
        await kit.infer(key=7, version="" if traffic else "v2")
    assert kit.upstreams["v1"].calls == []


async def test_without_the_option_the_caller_gets_the_error(tmp_path: Path) -> None:
    """It is off unless asked for."""
    kit = await serving(tmp_path, fallback={})

    with pytest.raises(InferenceFailed):
        await kit.infer()


async def test_both_calls_are_counted_and_recorded(tmp_path: Path) -> None:
    """The failure under the canary's probability, the answer as nobody's draw."""
    kit = await serving(tmp_path)
    await kit.infer()

    failed, answered = rows(kit)
    assert (failed.version, failed.role, failed.reason, failed.code) == (
        "v2", "canary", "random", "INTERNAL",
    )  # fmt: skip
    assert failed.probability == 1.0
    assert (answered.version, answered.role, answered.reason, answered.code) == (
        "v1", "production", "fallback", "OK",
    )  # fmt: skip
    assert answered.probability == 0.0
    requests = {
        (labels[2], labels[-1]): value[0]
        for (family, labels), value in kit.counted.items()
        if family == "sluice_requests_total"
    }
    assert requests == {("canary", "INTERNAL"): 1, ("production", "OK"): 1}


class Rows:
    """A prediction log that keeps what it is offered."""

    on = True

    def __init__(self) -> None:
        self.kept: list[Offer] = []

    def offer(self, offer: Offer) -> None:
        """Keep it."""
        self.kept.append(offer)

    def publish(self) -> None:
        """Nothing is counted."""

    def close(self) -> None:
        """Nothing is open."""


async def test_both_calls_go_to_the_prediction_log(tmp_path: Path) -> None:
    """With what each was given; only production's row has outputs."""
    log = Rows()
    kit = await serving(tmp_path, log=log)
    await kit.infer(id="r1")

    failed, answered = log.kept
    assert [PredictionRecord(*one.head).version for one in log.kept] == ["v2", "v1"]
    assert [PredictionRecord(*one.head).request_id for one in log.kept] == ["r1", "r1"]
    assert failed.feed is not None
    assert failed.outputs is None
    assert answered.outputs is not None


async def test_if_production_fails_too_the_caller_gets_its_error(tmp_path: Path) -> None:
    """The canary's is never shown."""
    kit = await serving(tmp_path)
    kit.upstreams["v1"].failure = Overloaded("production is full", reason="queue_full")

    with pytest.raises(Overloaded, match="production is full"):
        await kit.infer()
    assert outcomes(kit) == {"failed": 1}
    assert [one.role for one in rows(kit)] == ["canary", "production"]


async def test_production_is_asked_once(tmp_path: Path) -> None:
    """However it ends."""
    kit = await serving(tmp_path)
    kit.upstreams["v1"].failure = InferenceFailed("not you too")

    with pytest.raises(InferenceFailed, match="not you too"):
        await kit.infer()
    assert len(kit.upstreams["v1"].calls) == 1


async def test_the_canary_must_answer_a_third_before_the_deadline(tmp_path: Path) -> None:
    """Production has the rest."""
    kit = await serving(tmp_path)
    began = kit.clock.monotonic()

    await kit.infer()

    assert kit.upstreams["v2"].calls[0]["deadline"] == pytest.approx(began + 0.06)
    assert kit.upstreams["v1"].calls[0]["deadline"] == pytest.approx(began + 0.09)


async def test_a_failure_at_the_last_moment_is_not_asked_again(tmp_path: Path) -> None:
    """There is no time for it: the caller gets what there is."""
    kit = await serving(tmp_path)
    gate = kit.upstreams["v2"].release = asyncio.Event()
    asking = asyncio.create_task(kit.infer())
    await asyncio.sleep(0)
    kit.clock.advance(0.0895)
    gate.set()

    with pytest.raises(InferenceFailed, match="says no"):
        await asking
    assert outcomes(kit) == {"no_time": 1}


async def test_past_the_budget_the_caller_gets_the_canarys_error(tmp_path: Path) -> None:
    """With a budget of a tenth every tenth request is asked twice in the long run."""
    kit = await serving(tmp_path)
    ended = []
    for _ in range(100):
        try:
            ended.append((await kit.infer()).version)
        except InferenceFailed as error:
            ended.append(error.message)

    assert ended[:20] == ["v1"] * 20
    assert ended.count("v1") == 20 + 10 - 1  # the first request found the bucket full
    assert set(ended) == {"v1", "the canary says no"}
    assert outcomes(kit)["no_budget"] == 71


async def test_a_new_table_does_not_refill_the_budget(tmp_path: Path) -> None:
    """Weights change every few minutes, and a canary that fails goes on failing."""
    kit = await serving(tmp_path, fallback={"on_canary_error": "production", "budget": 0.01})
    for _ in range(20):
        await kit.infer()
    await kit.serve(2)
    kit.upstreams["v2"].failure = FAILED

    with pytest.raises(InferenceFailed):
        await kit.infer()


async def test_a_caller_who_leaves_takes_the_second_try_along(tmp_path: Path) -> None:
    """It is abandoned, counted as such, and nothing is left in flight."""
    kit = await serving(tmp_path)
    kit.upstreams["v1"].release = asyncio.Event()
    asking = asyncio.create_task(kit.infer())
    while not kit.upstreams["v1"].calls:
        await asyncio.sleep(0)
    asking.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert outcomes(kit) == {"abandoned": 1}
    assert kit.pipeline.admission.in_flight == 0


async def test_a_table_that_is_replaced_meanwhile_loses_no_request(tmp_path: Path) -> None:
    """Production's session of the old table may be closed by then; the new one's answers."""
    kit = await serving(tmp_path)
    gate = kit.upstreams["v2"].release = asyncio.Event()
    asking = asyncio.create_task(kit.infer())
    await asyncio.sleep(0)
    old = kit.upstreams["v1"]
    await kit.serve(2)
    replacement = ScriptedUpstream(old.compute)
    kit.pipeline.table.models["m"].lanes["v1"].upstream = replacement
    old.is_ready = False
    gate.set()

    assert (await asking).version == "v1"
    assert len(replacement.calls) == 1


async def test_a_failure_holds_on_to_nothing(tmp_path: Path) -> None:
    """Its frames hold the request: kept beside it they would never be collected."""
    kit = await serving(tmp_path)
    failure = kit.upstreams["v2"].failure = InferenceFailed("it failed")

    await kit.infer()

    assert failure.__traceback__ is None


def test_the_canarys_time_is_a_span_of_its_own() -> None:
    """A trace shows where the time went, without a gap between the stations."""
    inference = Inference([], 0.5, 1.0, 1)
    call = Call(protocol="http", arrived=0.0)
    trip = Trip(1, InferRequest("m", "", []), call, None)
    trip.inference, trip.admitted, trip.joined_at = inference, 1, 2
    trip.gave_up, trip.inferred = 5, 7

    shown = spans(trip, 8.0)

    assert [name for name, *_ in shown] == [
        "decode", "admit", "join", "canary", "queue", "infer", "answer",
    ]  # fmt: skip
    assert ("canary", 2, 5) in shown
    assert all(before[2] == after[1] for before, after in pairwise(shown))


@given(
    reserve=st.none() | st.floats(0, 10),
    whole=st.floats(1e-3, 10),
    spent=st.floats(0, 1),
)
def test_the_canary_gets_at_least_half_of_what_is_left(
    reserve: float | None, whole: float, spent: float
) -> None:
    """Whatever is kept for production: a caller in a hurry is not the canary's fault."""
    asked = spent * whole

    at = given_up_at(reserve, arrived=0.0, asked=asked, deadline=whole)

    assert (asked + whole) / 2 <= at <= whole


@pytest.mark.parametrize("weight", [0.02, 0.2, 0.7, 1.0])
def test_second_tries_are_a_share_of_all_requests(weight: float) -> None:
    """With a canary that fails everything; the first few of a quiet worker aside."""
    source = random.Random(4)
    budget = Budget()
    tries = 0
    for _ in range(20_000):
        if source.random() < weight:
            budget.earn(0.1, weight)
            tries += budget.spend(0.1)

    assert tries <= BURST + 0.1 * 20_000 * 1.1
    assert tries >= 0.9 * min(0.1, weight) * 20_000


def test_without_a_share_there_is_no_second_try() -> None:
    """A budget of nothing has no first few either."""
    assert not Budget().spend(0.0)
