import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from control_admin_kit import Gateway

from serving.cli.plan import plan_text
from serving.control.admin.answers import ApplyAnswer

STEPS = [{"weight": 5, "bake": {"min": "1h"}}, {"weight": 100}]
ROLLOUT = {"canary": "v2", "steps": STEPS}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that is not started."""
    async with Gateway(tmp_path) as made:
        yield made


async def standing(gateway: Gateway, phase: str) -> dict[str, Any]:
    """How demo's rollout stands, once it is in a phase."""
    async with asyncio.timeout(60):
        while True:
            answer = await gateway.http.get("/api/v1/rollouts/demo")
            if answer.status_code == 200 and answer.json()["phase"] == phase:
                found: dict[str, Any] = answer.json()
                return found
            await asyncio.sleep(0.02)


async def test_an_apply_begins_a_rollout_that_people_steer(gateway: Gateway) -> None:
    """Over HTTP and a real store, with a worker that follows: begin, pause, conflict, abort."""
    await gateway.start()
    async with gateway.worker():
        gateway.config.model(rollout=ROLLOUT)
        assert (await gateway.apply()).status_code == 200
        begun = await standing(gateway, "progressing")
        paused = await gateway.verb("/api/v1/rollouts/demo/pause", {"reason": "lunch"})
        late = {"expected_revision": begun["revision"]}
        refused = await gateway.verb("/api/v1/rollouts/demo/abort", late)
        aborted = await gateway.verb("/api/v1/rollouts/demo/abort")
        await standing(gateway, "aborted")

        assert (begun["weight"], begun["steps"]) == (5.0, ["weight 5 %", "weight 100 %"])
        assert (paused.json()["phase"], paused.json()["reason"]) == ("paused", "lunch")
        assert refused.status_code == 409
        assert refused.json()["standing"]["phase"] == "paused"
        assert refused.json()["revision"] == paused.json()["revision"]
        assert aborted.json()["phase"] == "aborting"
        history = (await gateway.get("/api/v1/rollouts/demo/history"))["rollouts"]
        assert [one["id"] for one in history] == ["demo-r1"]
        assert [event["kind"] for event in history[0]["events"]] == [
            "started", "stepped", "paused", "aborting", "aborted",
        ]  # fmt: skip
        verbs = [(line["verb"], line["who"]) for line in gateway.audit()]
        assert ("rollout pause", "admin-token") in verbs
        assert ("rollout stepped", "controller") in verbs


async def test_plan_and_apply_say_that_a_stopped_file_does_not_begin_again(
    gateway: Gateway,
) -> None:
    """Before it is applied, and by whoever applies it all the same; a retry is what they name."""
    await gateway.start()
    async with gateway.worker():
        gateway.config.model(rollout=ROLLOUT)
        begun = await gateway.apply()
        await standing(gateway, "progressing")
        await gateway.verb("/api/v1/rollouts/demo/abort", {"reason": "odd"})
        await standing(gateway, "aborted")
        planned = await gateway.verb("/api/v1/config/plan", {"directory": str(gateway.config.root)})
        applied = await gateway.apply()

        assert begun.json()["held"] == {}
        assert "v2 was stopped in demo-r1 (odd)" in planned.json()["held"]["demo"]
        assert "`sluice rollout retry" in applied.json()["held"]["demo"]
        [line] = str(plan_text(msgspec.convert(planned.json(), ApplyAnswer))).splitlines()[-1:]
        assert line.startswith("! demo: its rollout does not begin by itself: v2 was stopped")


async def test_rollouts_are_listed_measured_and_shown(gateway: Gateway) -> None:
    """In the list, among the metrics, in the status and on the page."""
    gateway.config.model(rollout=ROLLOUT)
    await gateway.start()
    async with gateway.worker():
        await standing(gateway, "progressing")
        [listed] = await gateway.get("/api/v1/rollouts")
        metrics = (await gateway.http.get("/metrics")).text
        page = (await gateway.http.get("/", headers={"accept": "text/html"})).text
        status = await gateway.get("/api/v1/status")
        history = await gateway.get("/api/v1/history")

    assert listed["id"] == "demo-r1"
    assert 'sluice_rollout_weight{model="demo"} 5.0' in metrics
    assert 'sluice_rollout_phase{model="demo",phase="progressing"} 1.0' in metrics
    assert "<h2>Rollouts</h2>" in page
    assert "v1 → v2" in page
    assert status["rollouts"][0]["phase"] == "progressing"
    assert history["entries"][0]["action"] == "rollout"


@pytest.mark.parametrize("path", ["/api/v1/rollouts/demo", "/api/v1/rollouts/nobody/history"])
async def test_what_is_not_there_is_404(gateway: Gateway, path: str) -> None:
    """A model without a rollout, and no model at all."""
    await gateway.start()

    assert (await gateway.http.get(path)).status_code == 404


async def test_verbs_need_their_role(gateway: Gateway) -> None:
    """Nobody in particular may not even pause."""
    await gateway.start()
    for verb in ("promote", "pause", "resume", "approve", "abort", "retry"):
        answer = await gateway.http.post(f"/api/v1/rollouts/demo/{verb}", json={})
        assert answer.status_code == 401
