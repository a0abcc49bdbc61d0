import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from pipeline_kit import Kit, keys, row

from serving.config.identity import TokenTable, hash_token
from serving.config.schema import TokenEntry
from serving.config.snapshot import RolloutTraffic
from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    PermissionDenied,
)
from serving.types import RequestedOutput, Tensor
from serving.worker import mirror

CANARY = {"version": "v2", "weight": 50}


def tokens(**roles: str) -> TokenTable:
    """Make a table where the token of NAME is NAME itself."""
    return TokenTable.from_entries(
        [
            TokenEntry(name=name, sha256=hash_token(name), roles=[role])  # type: ignore[list-item]
            for name, role in roles.items()
        ]
    )


async def test_an_answer_names_version_role_and_prediction(tmp_path: Path) -> None:
    """The outputs, and the evidence of who made them."""
    kit = await Kit(tmp_path).serve()

    response = await kit.infer(id="r1")

    np.testing.assert_array_equal(response.outputs[0].data, [3.0])
    assert (response.model, response.version, response.id) == ("m", "v1", "r1")
    assert response.parameters["model_role"] == "production"
    assert str(response.parameters["prediction_id"]).endswith("~m~v1~production")


async def test_prediction_ids_differ(tmp_path: Path) -> None:
    """Two answers in the same millisecond are two predictions."""
    kit = await Kit(tmp_path).serve()

    made = {(await kit.infer()).parameters["prediction_id"] for _ in range(20)}

    assert len(made) == 20


async def test_the_deadline_travels_to_the_upstream(tmp_path: Path) -> None:
    """The model's own deadline, counted from arrival, shortened by the caller."""
    kit = await Kit(tmp_path, serve={"deadline": "100ms"}).serve()
    await kit.infer()
    await kit.infer(call=kit.call(timeout=0.02))

    now = kit.clock.monotonic()
    deadlines = [call["deadline"] for call in kit.upstreams["v1"].calls]
    assert deadlines == pytest.approx([now + 0.1, now + 0.02])


async def test_an_expired_request_never_reaches_a_model(tmp_path: Path) -> None:
    """A budget used up by reading is refused before any work."""
    kit = await Kit(tmp_path).serve()
    call = kit.call(timeout=0.02)
    kit.clock.advance(0.03)

    with pytest.raises(DeadlineExceeded):
        await kit.infer(call=call)
    assert kit.upstreams["v1"].calls == []
    assert kit.counted["sluice_rejected_total", ("m", "deadline")] == [1.0]


async def test_a_disconnected_caller_gives_its_slot_back(tmp_path: Path) -> None:
    """Cancelling a request frees its place and is counted as the client's doing."""
    kit = await Kit(tmp_path).serve()
    kit.upstreams["v1"].release = asyncio.Event()
    waiting = asyncio.ensure_future(kit.infer())
    await asyncio.sleep(0)
    assert kit.pipeline.admission.in_flight == 1

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert kit.pipeline.admission.in_flight == 0
    outcome = ("m", "v1", "production", "internal", "CANCELLED")
    assert kit.counted["sluice_requests_total", outcome] == [1.0]


async def test_keys_stick_to_their_version(tmp_path: Path) -> None:
    """Asked twice, a key is answered by the same version; both versions get keys."""
    kit = await Kit(tmp_path, canary=CANARY, assignment={"key": "key"}).serve()

    first = {key: (await kit.infer(key=key)).version for key in keys(50)}
    again = {key: (await kit.infer(key=key)).version for key in keys(50)}

    assert first == again
    assert set(first.values()) == {"v1", "v2"}


async def test_a_header_can_hold_the_key(tmp_path: Path) -> None:
    """Where the key is no input, a header assigns."""
    kit = await Kit(tmp_path, canary=CANARY, assignment={"header": "x-user"}).serve()
    assert kit.pipeline.table.header_names == {"x-user"}

    async def version(user: str) -> str:
        return str((await kit.infer(call=kit.call(headers={"x-user": user}))).version)

    assert {await version("ann") for _ in range(5)} == {await version("ann")}
    assert {await version(str(user)) for user in keys(50)} == {"v1", "v2"}


async def test_a_version_asked_for_by_name_answers(tmp_path: Path) -> None:
    """`/versions/v2` is outside the lottery."""
    kit = await Kit(tmp_path).serve()

    response = await kit.infer(version="v2")

    assert (response.version, response.parameters["model_role"]) == ("v2", "pinned")


async def test_an_override_header_needs_its_role(tmp_path: Path) -> None:
    """An operator picks the version, an application is told why it may not."""
    identity = tokens(app="infer", ops="operator")
    kit = await Kit(tmp_path, identity=identity, overrides=[{}]).serve()

    async def ask(token: str) -> Any:
        headers = {"x-sluice-version": "v3"}
        return await kit.infer(call=kit.call(authorization=f"Bearer {token}", headers=headers))

    assert (await ask("ops")).version == "v3"
    with pytest.raises(PermissionDenied, match="'x-sluice-version' needs one of the roles"):
        await ask("app")


async def test_without_tokens_nobody_may_override(tmp_path: Path) -> None:
    """An open data plane gives everybody the role infer and no more."""
    kit = await Kit(tmp_path, overrides=[{}]).serve()

    with pytest.raises(PermissionDenied):
        await kit.infer(call=kit.call(headers={"x-sluice-version": "v3"}))


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model": "nobody"}, ModelNotFound),
        ({"version": "v9"}, ModelNotFound),
        ({"inputs": [row(1, 2, 3)]}, InvalidRequest),
        ({"outputs": [RequestedOutput("nothing")]}, InvalidRequest),
    ],
)
async def test_a_bad_request_harms_nobody(
    tmp_path: Path, fields: dict[str, Any], kind: type[Exception]
) -> None:
    """It is refused by name, leaves no slot taken, and the next one is answered."""
    kit = await Kit(tmp_path).serve()

    with pytest.raises(kind):
        await kit.infer(**fields)

    assert kit.pipeline.admission.in_flight == 0
    assert (await kit.infer()).version == "v1"


async def test_unknown_models_share_one_label(tmp_path: Path) -> None:
    """Names from requests never become metric labels."""
    kit = await Kit(tmp_path).serve()
    for number in range(5):
        with pytest.raises(ModelNotFound):
            await kit.infer(model=f"nobody-{number}")

    assert kit.counted["sluice_rejected_total", ("_unknown", "model_not_found")] == [5.0]


async def test_a_failing_model_is_the_models_failure(tmp_path: Path) -> None:
    """It is counted against its version and recorded, and not among the refusals."""
    kit = await Kit(tmp_path).serve()
    kit.upstreams["v1"].failure = InferenceFailed("no")

    with pytest.raises(InferenceFailed):
        await kit.infer()

    outcome = ("m", "v1", "production", "internal", "INTERNAL")
    assert kit.counted["sluice_requests_total", outcome] == [1.0]
    assert kit.counted["sluice_inference_phase_total", ("m", "v1", "fail")] == [1.0]
    assert kit.pipeline.recorder.recent(1)[0].code == "INTERNAL"
    assert not any(name == "sluice_rejected_total" for name, _ in kit.counted)


async def test_an_unready_version_is_not_asked(tmp_path: Path) -> None:
    """A version that is known but cannot answer is 'not ready', not 'not found'."""
    kit = await Kit(tmp_path).serve()
    kit.upstreams["v1"].is_ready = False

    with pytest.raises(ModelNotReady, match="version 'v1' is not ready"):
        await kit.infer()


async def test_an_unloaded_model_says_so(tmp_path: Path) -> None:
    """The repository API's unload leaves the model known."""
    kit = await Kit(tmp_path).serve()
    await kit.serve(2, unloaded=True)

    with pytest.raises(ModelNotReady, match="is unloaded"):
        await kit.infer()
    assert kit.upstreams["v1"].closed


async def test_a_table_is_replaced_without_touching_what_is_in_flight(tmp_path: Path) -> None:
    """A request that began under the old table ends under it; the next one sees the new."""
    kit = await Kit(tmp_path).serve()
    kit.upstreams["v1"].release = release = asyncio.Event()
    waiting = asyncio.ensure_future(kit.infer())
    await asyncio.sleep(0)

    await kit.serve(2, production="v2")
    after = await kit.infer()
    release.set()

    assert (await waiting).version == "v1"
    assert after.version == "v2"
    revisions = {one.version: one.revision for one in kit.pipeline.recorder.recent()}
    assert revisions == {"v1": 1, "v2": 2}, "a record names the table that decided"
    assert not kit.upstreams["v1"].closed, "unchanged versions keep their sessions"


async def test_labels_travel_with_the_answer(tmp_path: Path) -> None:
    """The codecs rank classes and name them; the names come from the configuration."""
    kit = await Kit(tmp_path).serve()

    assert (await kit.infer()).labels == []


async def test_the_ring_keeps_the_newest_records(tmp_path: Path) -> None:
    """Past its capacity old records are replaced and counted."""
    kit = await Kit(tmp_path).serve()
    for number in range(10):
        await kit.infer(id=str(number))

    recent = kit.pipeline.recorder.recent(3)

    assert [record.request_id for record in recent] == ["9", "8", "7"]
    assert kit.counted["sluice_records_total", ("replaced",)] == [2.0]


async def test_shadows_see_copies_after_the_answer(tmp_path: Path) -> None:
    """The copy is answered by the shadow in the lowest class and compared with the answer."""
    kit = await Kit(tmp_path, shadow=[{"version": "v2"}, {"version": "v3"}]).serve()
    kit.mirror.start()

    await kit.infer()
    assert kit.upstreams["v2"].calls == []
    await kit.until_counted("sluice_mirrored_total", "m", "v3", "answered")
    await kit.mirror.stop()

    assert kit.upstreams["v2"].calls[0]["shadow"] is True
    assert kit.counted["sluice_shadow_agreement_total", ("m", "v2", "different")] == [1.0]
    assert kit.counted["sluice_shadow_agreement_total", ("m", "v3", "equal")] == [1.0]


async def test_a_busy_worker_mirrors_nothing(tmp_path: Path) -> None:
    """While a request is in flight copies wait; past the bound the oldest are dropped."""
    kit = await Kit(tmp_path, shadow=[{"version": "v3"}]).serve()
    kit.mirror.start()
    kit.upstreams["v1"].release = release = asyncio.Event()
    blocked = asyncio.ensure_future(kit.infer())
    await asyncio.sleep(0)
    kit.upstreams["v1"].release = None
    for _ in range(300):
        await kit.infer()

    assert kit.upstreams["v3"].calls == []
    assert kit.counted["sluice_mirrored_total", ("m", "v3", "dropped")] == [300 - 256]
    release.set()
    await blocked
    await kit.mirror.stop()


async def test_copies_are_bounded_in_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few large requests waiting for idle time must not fill the memory."""
    kit = await Kit(tmp_path, shadow=[{"version": "v3"}]).serve()
    await kit.infer()
    one = kit.mirror._bytes
    monkeypatch.setattr(mirror, "CAPACITY_BYTES", 3 * one)
    for _ in range(9):
        await kit.infer()

    assert one > 0
    assert kit.mirror._bytes == 3 * one
    assert kit.counted["sluice_mirrored_total", ("m", "v3", "dropped")] == [7]
    await kit.mirror.stop()
    assert kit.mirror._bytes == 0


async def test_a_failing_shadow_is_only_counted(tmp_path: Path) -> None:
    """Nobody who waits for production hears of it."""
    kit = await Kit(tmp_path, shadow=[{"version": "v2"}]).serve()
    kit.upstreams["v2"].failure = InferenceFailed("no")
    kit.mirror.start()

    assert (await kit.infer()).version == "v1"
    await kit.until_counted("sluice_mirrored_total", "m", "v2", "failed")
    await kit.mirror.stop()


async def test_several_rows_follow_the_first(tmp_path: Path) -> None:
    """A batch is routed whole, by the key of its first row."""
    kit = await Kit(tmp_path, canary=CANARY, assignment={"key": "key"}).serve()
    alone = {key: (await kit.infer(key=key)).version for key in keys(20)}
    for key, version in alone.items():
        rows = [
            Tensor("X", "FP32", np.ones((2, 2), np.float32)),
            Tensor("key", "INT64", np.array([key, 7])),
        ]
        assert (await kit.infer(inputs=rows)).version == version


async def test_a_tenant_is_known_by_its_token(tmp_path: Path) -> None:
    """Who calls on behalf of one that is pinned to production never meets the canary."""
    identity = TokenTable.from_entries(
        [
            TokenEntry(name=name, sha256=hash_token(name), roles=["infer"], tenant=tenant)
            for name, tenant in (("shop", "acme"), ("other", None))
        ]
    )
    plan: dict[str, Any] = {
        "canary": {"version": "v2", "weight": 100},
        "shadow": [{"version": "v3"}],
        "overrides": [{"tenants": ["acme"]}],
    }
    kit = await Kit(tmp_path, identity=identity, **plan).serve()

    pinned = await kit.infer(call=kit.call(authorization="Bearer shop"))
    drawn = await kit.infer(call=kit.call(authorization="Bearer other"))

    assert (pinned.version, pinned.parameters["model_role"]) == ("v1", "pinned")
    assert (drawn.version, drawn.parameters["model_role"]) == ("v2", "canary")
    await kit.mirror.stop()
    assert kit.counted["sluice_mirrored_total", ("m", "v3", "dropped")] == [1.0]


async def test_an_entity_is_pinned_where_no_lots_are_drawn(tmp_path: Path) -> None:
    """The key is read for it though nothing else needs one."""
    kit = await Kit(
        tmp_path,
        assignment={"key": "key"},
        overrides=[{"entities": [7], "version": "v2", "reason": "a pilot"}],
    ).serve()

    assert (await kit.infer(key=7)).version == "v2"
    assert (await kit.infer(key=8)).version == "v1"
    assert (await kit.infer()).version == "v1"


async def test_a_rollout_is_put_over_the_plan(tmp_path: Path) -> None:
    """What control publishes beside a model decides who gets the new version."""
    kit = Kit(tmp_path, assignment={"key": "key"})
    answered = []
    for revision, weight in enumerate((0.0, 40.0, 100.0), 1):
        rollout = RolloutTraffic(
            id="m-r1", revision=revision, canary="v2", production="v1", weight=weight, salt="m-r1"
        )
        snapshot = replace(kit.snapshot(revision), rollouts={"m": rollout})
        old = kit.pipeline.table
        kit.pipeline.table = await kit.loader.build(snapshot, old)
        await kit.loader.retire(old, kit.pipeline.table)
        answered.append({key for key in keys(60) if (await kit.infer(key=key)).version == "v2"})

    assert answered[0] == set() < answered[1] < answered[2] == set(keys(60))
