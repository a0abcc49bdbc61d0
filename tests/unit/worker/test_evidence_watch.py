"""What a request leaves behind for a rollout, through the whole pipeline."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from evidence_kit import RolloutKit, rollout_of, told, traffic_of
from pipeline_kit import row

from serving.errors import InferenceFailed, InvalidRequest, ModelNotReady, ServingError
from serving.rollout.wire import Batch
from serving.worker.evidence.in_flight import Word


@pytest.fixture
async def kit(tmp_path: Path) -> RolloutKit:
    """Half of the keys get v2."""
    return await RolloutKit(tmp_path).serve()


def excluded(batch: Batch) -> dict[str, list[int]]:
    """Of the only probability."""
    [share] = batch.shares
    return share.excluded


async def test_answers_are_exposures_and_predictions_of_their_arm(kit: RolloutKit) -> None:
    """v1 says 3 to everybody and v2 says 4: they fall into different bins."""
    [ours], [theirs] = kit.keys_of("v2", 1), kit.keys_of("v1", 1)
    for key in (ours, theirs, theirs):
        await kit.infer(key=key)
    batch = kit.batch()

    assert batch.shares[0].rho == 0.5
    assert batch.shares[0].requests == [1, 2]
    assert told(batch) == {
        "exposed/canary": {kit.cell(ours): 1},
        "exposed/production": {kit.cell(theirs): 1},
        "scores:2/canary": {kit.cell(ours): 1},
        "scores:1/production": {kit.cell(theirs): 1},
    }


async def test_a_request_without_a_key_is_a_unit_of_its_own(kit: RolloutKit) -> None:
    """It was drawn by itself, and counts by itself."""
    for _ in range(40):
        await kit.infer()
    [share] = kit.batch().shares

    assert sum(share.requests) == 40
    assert share.exposed.canary.unkeyed == share.requests[0]
    assert share.exposed.production.unkeyed == share.requests[1]
    assert share.events["scores:2"].canary.unkeyed == share.requests[0]


async def test_a_failure_is_an_error_and_slow(kit: RolloutKit) -> None:
    """A version that fails is not fast."""
    [ours] = kit.keys_of("v2", 1)
    kit.upstreams["v2"].failure = InferenceFailed("no idea")
    with pytest.raises(InferenceFailed):
        await kit.infer(key=ours)
    batch = kit.batch()

    cell = {kit.cell(ours): 1}
    assert batch.shares[0].requests == [1, 0]
    assert told(batch) == {
        "exposed/canary": cell,
        "errors/canary": cell,
        "slow/canary": cell,
    }


async def test_a_version_that_is_not_ready_fails(kit: RolloutKit) -> None:
    """It was drawn, and could not answer."""
    [ours] = kit.keys_of("v2", 1)
    kit.upstreams["v2"].is_ready = False
    with pytest.raises(ModelNotReady):
        await kit.infer(key=ours)

    assert "errors/canary" in told(kit.batch())


async def test_a_request_that_does_not_fit_is_left_out(kit: RolloutKit) -> None:
    """The caller's mistake is no event of either version; how often it was is told."""
    [ours] = kit.keys_of("v2", 1)
    with pytest.raises(InvalidRequest):
        await kit.infer(key=ours, inputs=[row(1, 2, 3)])
    batch = kit.batch()

    assert excluded(batch) == {"bad_request": [1, 0]}
    assert batch.shares[0].requests == [0, 0]
    assert list(told(batch)) == ["exposed/canary"]


async def test_a_caller_who_leaves_is_left_out(kit: RolloutKit) -> None:
    """Nobody knows how it would have ended, and its slot is free again."""
    [theirs] = kit.keys_of("v1", 1)
    kit.upstreams["v1"].release = asyncio.Event()
    asking = asyncio.ensure_future(kit.infer(key=theirs))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert excluded(kit.batch()) == {"client_gone": [0, 1]}
    assert kit.watch is not None
    assert len(kit.watch.flight.free) == 64


async def test_who_waits_for_a_version_has_met_it(kit: RolloutKit) -> None:
    """Told once, while the request is in flight: a version that hangs is no draw gone wrong."""
    [ours] = kit.keys_of("v2", 1)
    release = kit.upstreams["v2"].release = asyncio.Event()
    asking = asyncio.ensure_future(kit.infer(key=ours))
    await asyncio.sleep(0)
    waiting = told(kit.batch())
    release.set()
    await asking
    answered = told(kit.batch())

    assert waiting == {"exposed/canary": {kit.cell(ours): 1}}
    assert set(answered) == {"scores:2/canary"}


async def test_a_caller_who_waited_too_long_saw_a_slow_request(kit: RolloutKit) -> None:
    """Whoever leaves after the bound has seen that it is passed, whatever would have come."""
    [theirs] = kit.keys_of("v1", 1)
    kit.upstreams["v1"].release = asyncio.Event()
    asking = asyncio.ensure_future(kit.infer(key=theirs))
    await asyncio.sleep(0)
    kit.clock.advance(0.06)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert "slow/production" in told(kit.batch())


async def test_a_pinned_request_is_told_and_not_counted(kit: RolloutKit) -> None:
    """Nobody drew lots for it."""
    await kit.infer(key=1, version="v2")
    await kit.infer(key=1, version="v3")
    batch = kit.batch()

    assert excluded(batch) == {"asked_for": [1, 0]}
    assert told(batch) == {}


async def test_a_request_in_flight_has_a_slot(kit: RolloutKit) -> None:
    """From routing to its end the file names its key and arm, and then no more."""
    [ours] = kit.keys_of("v2", 1)
    kit.upstreams["v2"].release = release = asyncio.Event()
    asking = asyncio.ensure_future(kit.infer(key=ours))
    await asyncio.sleep(0)
    assert kit.watch is not None
    flight = kit.watch.flight
    held = [at for at in range(0, len(flight.words), 2) if flight.words[at] == kit.place(ours)]

    [slot] = held
    assert flight.words[slot + 1] == flight.code(0.5, 0, keyed=True)
    release.set()
    await asking
    assert flight.words[slot + 1] == 0
    assert flight.words[Word.NOTED] == 1


async def test_a_canary_that_plainly_fails_gets_no_more(kit: RolloutKit) -> None:
    """After seventeen failures its keys are production's at once, and control hears why."""
    keys = kit.keys_of("v2", 20)
    kit.upstreams["v2"].failure = InferenceFailed("no idea")
    outcomes = []
    for key in keys:
        try:
            outcomes.append((await kit.infer(key=key)).version)
        except InferenceFailed:
            outcomes.append("failed")
    batch = kit.batch()

    assert outcomes == ["failed"] * 17 + ["v1"] * 3
    assert kit.urgent == 1
    assert batch.tripped == "17 requests failed one after another"
    assert batch.shares[0].requests == [17, 0]
    assert excluded(batch) == {"hard_stop": [0, 3]}


async def test_a_canary_that_fails_no_more_than_production_goes_on(kit: RolloutKit) -> None:
    """Everything fails: an incident, and not the new version."""
    for upstream in kit.upstreams.values():
        upstream.failure = InferenceFailed("no idea")
    for ours, theirs in zip(kit.keys_of("v2", 30), kit.keys_of("v1", 30), strict=True):
        for key in (ours, theirs):
            with pytest.raises(InferenceFailed):
                await kit.infer(key=key)

    assert kit.batch().tripped == ""
    assert kit.urgent == 0


async def test_a_hard_stop_is_told_once(kit: RolloutKit) -> None:
    """Later batches have other news."""
    kit.upstreams["v2"].failure = InferenceFailed("no idea")
    for key in kit.keys_of("v2", 17):
        with pytest.raises(InferenceFailed):
            await kit.infer(key=key)
    assert kit.batch().tripped
    await kit.infer(key=kit.keys_of("v1", 1)[0])

    assert kit.batch().tripped == ""


async def test_a_higher_revision_lifts_a_hard_stop(kit: RolloutKit) -> None:
    """Control has decided something since; the same revision again lifts nothing."""
    keys = kit.keys_of("v2", 17)
    key = keys[0]
    kit.upstreams["v2"].failure = InferenceFailed("no idea")
    for one in keys:
        with pytest.raises(InferenceFailed):
            await kit.infer(key=one)
    await kit.serve(2)
    assert (await kit.infer(key=key)).version == "v1"

    kit.rolled = msgspec.structs.replace(kit.rolled, revision=4)
    await kit.serve(3)
    kit.upstreams["v2"].failure = None
    assert (await kit.infer(key=key)).version == "v2"


async def test_a_key_is_told_once_over_tables(kit: RolloutKit) -> None:
    """A new table, with another weight too, is still the same rollout."""
    [ours] = kit.keys_of("v2", 1)
    await kit.infer(key=ours)
    assert told(kit.batch())
    kit.rolled = traffic_of(weight=75.0, revision=4)
    await kit.serve(2)
    await kit.infer(key=ours)
    batch = kit.batch()

    assert batch.shares[0].rho == 0.75
    assert batch.shares[0].requests == [1, 0]
    assert told(batch) == {}


async def test_everything_or_nothing_draws_no_lots(tmp_path: Path) -> None:
    """At weight 100 there is nobody to compare with; only the hard stop looks."""
    kit = await RolloutKit(tmp_path, traffic=traffic_of(weight=100.0)).serve()
    kit.upstreams["v2"].failure = InferenceFailed("no idea")
    for key in range(5):
        with pytest.raises(InferenceFailed):
            await kit.infer(key=key)

    assert (await kit.infer(key=6)).version == "v1"
    batch = kit.batch()
    assert batch.shares == []
    assert batch.tripped


async def shadowed(tmp_path: Path, **fields: Any) -> RolloutKit:
    """Everybody's copy goes to v2."""
    rolled = traffic_of(weight=0.0, shadow=100.0, **fields)
    kit = await RolloutKit(tmp_path, traffic=rolled, rollout=rollout_of()).serve()
    kit.mirror.start()
    return kit


async def outcomes(kit: RolloutKit) -> dict[str, int]:
    """Outcomes of all copies so far."""
    batch = kit.batch()
    return {name: len(one.cells) // 4 + one.unkeyed for name, one in batch.shadow.items()}


@pytest.mark.parametrize(("more", "outcome"), [(1.0, "differ"), (0.4, "agree"), (0.0, "agree")])
async def test_copies_are_compared_by_the_rule_s_own_measure(
    tmp_path: Path, more: float, outcome: str
) -> None:
    """The rule lets the versions differ by a half."""
    kit = await shadowed(tmp_path)
    kit.upstreams["v2"].compute = lambda x: (x.sum(axis=1) + more).astype(np.float32)
    await kit.infer(key=1)
    await kit.until_counted("sluice_mirrored_total", "m", "v2", "answered")
    await kit.mirror.stop()

    assert await outcomes(kit) == {outcome: 1}


@pytest.mark.parametrize(
    ("production", "shadow", "outcome"),
    [(False, True, "failed"), (True, False, "production_failed")],
)
async def test_a_failure_of_one_alone_is_told(
    tmp_path: Path, production: bool, shadow: bool, outcome: str
) -> None:
    """Whoever of the two failed on a request that the other answered."""
    kit = await shadowed(tmp_path)
    kit.upstreams["v1"].failure = InferenceFailed("no idea") if production else None
    kit.upstreams["v2"].failure = InferenceFailed("no idea") if shadow else None
    try:
        await kit.infer(key=1)
    except ServingError:
        assert production
    await kit.until_counted("sluice_mirrored_total", "m", "v2", "failed" if shadow else "answered")
    await kit.mirror.stop()

    assert await outcomes(kit) == {outcome: 1}


async def test_a_failure_of_both_says_nothing(tmp_path: Path) -> None:
    """Neither is worse."""
    kit = await shadowed(tmp_path)
    for version in ("v1", "v2"):
        kit.upstreams[version].failure = InferenceFailed("no idea")
    with pytest.raises(InferenceFailed):
        await kit.infer(key=1)
    await kit.until_counted("sluice_mirrored_total", "m", "v2", "failed")
    await kit.mirror.stop()

    assert kit.watch is not None
    assert kit.watch.close_batch(1, 0.0) is None


async def test_two_outputs_are_watched_by_two_rules(tmp_path: Path) -> None:
    """A rule without bins reads the decision, one with bins the score."""
    kit = RolloutKit(
        tmp_path,
        rollout=rollout_of(
            [
                {"name": "scores", "metric": "prediction_shift"},
                {"name": "classes", "metric": "prediction_shift"},
            ]
        ),
        prediction={"score": "sum", "decision": "other"},
    )
    await kit.serve()
    [ours] = kit.keys_of("v2", 1)
    await kit.infer(key=ours)

    assert set(told(kit.batch())) == {"exposed/canary", "scores:2/canary"}
