"""The admin port of a running control process: apply, plan, load and unload."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from control_admin_kit import Gateway

REFUSED = "no memory left for <b>it</b>"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with revision 1."""
    async with Gateway(tmp_path) as made:
        await made.start()
        yield made


async def test_apply_changes_what_is_served_and_waits_for_the_workers(running: Gateway) -> None:
    """The answer says what changed, under which revision, and that every worker has it."""
    running.config.traffic(canary={"version": "v2", "weight": 10})
    async with running.worker("worker-0"), running.worker("worker-1"):
        answer = await running.apply(expected_revision=1, reason="try v2", wait_seconds=30)

    body = answer.json()
    assert answer.status_code == 200, body
    assert (body["revision"], body["published"]) == (2, True)
    assert "  moves 10 % of the keys of demo to another version" in body["lines"]
    assert {one["worker"]: one["applied"] for one in body["workers"]} == {
        "worker-0": True,
        "worker-1": True,
    }
    stored = await running.store.snapshot()
    assert stored is not None
    assert (stored.revision, stored.author) == (2, "admin-token")
    [latest, first] = (await running.get("/api/v1/history"))["entries"]
    assert (latest["revision"], latest["reason"], latest["action"]) == (2, "try v2", "apply")
    assert any("canary" in line for line in latest["changes"])
    assert first["changes"][0] == "+ demo: production v1"
    [line] = running.audit()
    assert (line["who"], line["verb"], line["result"], line["revision"]) == (
        "admin-token",
        "apply",
        "ok",
        2,
    )


async def test_a_worker_that_refuses_is_told_with_its_reason(running: Gateway) -> None:
    """The caller learns that the old revision goes on there, and why."""
    running.config.traffic(canary={"version": "v2", "weight": 10})
    async with running.worker(refuse=REFUSED):
        body = (await running.apply(wait_seconds=30)).json()
        page = (await running.http.get("/")).text

    [worker] = body["workers"]
    assert (worker["applied"], worker["refused"]) == (False, REFUSED)
    assert "&lt;b&gt;it&lt;/b&gt;" in page
    assert "<b>it" not in page


async def test_a_stale_revision_is_a_conflict(running: Gateway) -> None:
    """409 with the current revision; nothing has changed."""
    running.config.traffic(canary={"version": "v2", "weight": 10})
    answer = await running.apply(expected_revision=5)

    assert answer.status_code == 409
    assert answer.json()["revision"] == 1
    assert (await running.get("/api/v1/status"))["revision"] == 1
    assert running.audit()[-1]["result"].startswith("Conflict: ")


async def test_an_invalid_configuration_is_refused_with_every_problem(running: Gateway) -> None:
    """400, each mistake with its line; what was served is served on."""
    running.config.artifact("v2", b"garbage")
    running.config.model(traffic={"production": "v7"}, sreve={})
    answer = await running.apply()

    assert answer.status_code == 400
    problems = answer.json()["problems"]
    assert any(line.startswith("models/demo.yaml:") and "sreve" in line for line in problems)
    stored = await running.store.snapshot()
    assert stored is not None
    assert stored.revision == 1


async def test_planning_changes_nothing(running: Gateway) -> None:
    """Plan and dry run show the same, and leave no revision and no audit of a change."""
    running.config.traffic(canary={"version": "v2", "weight": 10})
    running.config.gateway(limits={"max_body": "1MiB"})
    plan = (
        await running.verb("/api/v1/config/plan", {"directory": str(running.config.root)})
    ).json()
    dry = (await running.apply(dry_run=True)).json()

    assert plan == dry
    assert plan["published"] is False
    assert any(line.endswith("(rolls workers)") for line in plan["lines"])
    assert (await running.get("/api/v1/status"))["revision"] == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "directory"),
        (b"{", "truncated"),
        (b'{"directory": 5}', "`$.directory`"),
        (b'{"directory": "relative"}', "absolute"),
        (b'{"directory": "/x", "force": true}', "force"),
        (b"[" * 100_000, "body"),
        (b'{"directory": "/nowhere/at/all"}', "no such file"),
        (b'{"directory": "/x\\u0000y"}', "absolute"),
    ],
)
async def test_a_bad_body_is_refused_with_the_field(
    running: Gateway, body: bytes, says: str
) -> None:
    """400 and a message about what is wrong; never a 500."""
    answer = await running.http.post("/api/v1/config/apply", content=body, headers=running.admin)

    assert answer.status_code == 400
    assert says in answer.text


async def test_a_huge_body_is_refused(running: Gateway) -> None:
    """Past one MiB nothing is read on."""
    answer = await running.http.post(
        "/api/v1/config/apply", content=b" " * (2 << 20), headers=running.admin
    )

    assert answer.status_code == 413


async def test_unload_and_load_go_through_to_the_workers(running: Gateway) -> None:
    """KServe's bodies; the index follows; the model stays configured."""
    async with running.worker():
        unload = await running.verb("/v2/repository/models/demo/unload", {"parameters": {}})
        after_unload = (await running.http.post("/v2/repository/index")).json()
        load = await running.verb("/v2/repository/models/demo/load")
        after_load = (await running.http.post("/v2/repository/index", json={})).json()
        ready_only = (await running.http.post("/v2/repository/index", json={"ready": True})).json()

    assert (unload.status_code, unload.json()) == (200, {"name": "demo", "unload": True})
    assert (load.status_code, load.json()) == (200, {"name": "demo", "load": True})
    assert {one["state"] for one in after_unload} == {"UNAVAILABLE"}
    assert {one["reason"] for one in after_unload} == {"unloaded"}
    assert [(one["name"], one["version"], one["state"]) for one in after_load] == [
        ("demo", "v1", "READY"),
        ("demo", "v2", "READY"),
    ]
    assert ready_only == after_load
    assert [line["verb"] for line in running.audit()] == ["unload", "load"]
    assert [line["subject"] for line in running.audit()] == ["demo", "demo"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("nobody/load", None, 404, "Request for unknown model"),
        ("demo/load", {"parameters": {"config": "{}"}}, 501, "not offered"),
        ("demo/load", {"parameters": {"file:1/model.onnx": "AAAA"}}, 501, "not offered"),
        ("..%2f..%2fetc/load", None, 404, "error"),
        ("demo/load", [], 400, "body"),
    ],
)
async def test_loads_that_cannot_be_are_refused(
    running: Gateway, path: str, body: Any, status: int, says: str
) -> None:
    """Unknown models, uploads and odd names change nothing."""
    answer = await running.verb(f"/v2/repository/models/{path}", body)

    assert answer.status_code == status
    assert says in answer.text
    assert (await running.get("/api/v1/status"))["revision"] == 1


async def test_a_load_that_workers_refuse_says_failed_to_load(running: Gateway) -> None:
    """The words clients look for, and the worker's reason."""
    async with running.worker():
        await running.verb("/v2/repository/models/demo/unload")
    async with running.worker(refuse=REFUSED):
        answer = await running.verb("/v2/repository/models/demo/load")

    assert answer.status_code == 503
    assert answer.json()["error"].startswith("failed to load 'demo' on worker-0: no memory")


async def test_a_flushed_store_is_filled_again(running: Gateway) -> None:
    """FLUSHALL under a running control costs nothing but a moment."""
    before = await running.store.snapshot()
    await running.store._redis.flushall()
    async with asyncio.timeout(60):
        while (after := await running.store.snapshot()) is None:
            await asyncio.sleep(0.02)

    assert after == before


async def test_without_the_store_reading_works_and_changing_is_refused(running: Gateway) -> None:
    """Control stays useful; a change that no worker could hear of is a 503."""
    running.config.traffic(canary={"version": "v2", "weight": 10})
    running.valkey.process.kill()
    running.valkey.process.wait()
    answer = await running.apply()
    ready = await running.http.get("/readyz")
    status = await running.get("/api/v1/status")

    assert answer.status_code == 503
    assert str(running.valkey.socket) not in answer.text
    assert ready.status_code == 503
    assert (status["store"]["up"], status["revision"]) == (False, 1)
    assert len((await running.get("/api/v1/history"))["entries"]) == 1


async def test_staged_files_of_old_revisions_are_removed(running: Gateway) -> None:
    """Model files do not pile up with every revision; those of the last five are all there."""
    digests = []
    async with running.worker():
        for factor in range(3, 10):
            digests.append(running.config.artifact("v2", onnx_models.linear(factor, 0)))
            running.config.model()
            applied = await running.apply()
            assert applied.json()["workers"][0]["applied"], applied.text
        production = running.config.digests["v1"]
        wanted = {production, *digests[-5:]}
        async with asyncio.timeout(30):
            for folder in ("artifacts", "checked"):
                while {file.stem for file in (running.data / folder).iterdir()} != wanted:
                    await asyncio.sleep(0.05)
