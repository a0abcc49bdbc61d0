"""The admin port of a running control process: versions in quarantine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import onnx_models
import pytest
from control_admin_kit import Gateway

from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with revision 1."""
    async with Gateway(tmp_path) as made:
        await made.start()
        yield made


def quarantine(running: Gateway, version: str) -> None:
    """Two crashes, as a supervisor notes them down."""
    for at in (1.0, 2.0):
        suspects = (Suspect("demo", version, running.config.digests[version]),)
        crash = Crash(at=at, worker="worker-0", signal="SIGFPE", suspects=suspects)
        register.record(running.data, crash)


async def until_audited(running: Gateway, verb: str, subject: str) -> None:
    """Control looks at the register four times a second."""
    async with asyncio.timeout(60):
        while (verb, subject) not in {(one["verb"], one["subject"]) for one in running.audit()}:
            await asyncio.sleep(0.02)


async def test_a_version_in_quarantine_is_shown_told_once_and_lifted_once(
    running: Gateway,
) -> None:
    """Status, metrics, readiness and list agree; the audit log has one line of each verb."""
    quarantine(running, "v2")
    await until_audited(running, "quarantine", "demo/v2")

    [one] = (await running.get("/api/v1/quarantine"))["quarantined"]
    assert (one["model"], one["version"], one["crashes"], one["since"]) == ("demo", "v2", 2, 2.0)
    assert (await running.get("/api/v1/status"))["quarantined"] == [one]
    assert (await running.http.get("/readyz")).json()["quarantined"] == 1
    page = (await running.http.get("/metrics")).text
    assert 'sluice_quarantined_versions{model="demo",version="v2"} 1.0' in page

    path = "/api/v1/quarantine/demo/v2/lift"
    assert (await running.http.post(path)).status_code == 401
    lifted = await running.verb(path)
    again = await running.verb(path)

    assert (lifted.status_code, lifted.json()) == (
        200,
        {"model": "demo", "version": "v2", "waiting": []},
    )
    assert again.status_code == 404
    assert "is not in quarantine" in again.json()["error"]
    assert (await running.get("/api/v1/quarantine"))["quarantined"] == []
    lines = [(one["who"], one["verb"], one["subject"]) for one in running.audit()]
    assert lines.count(("engine", "quarantine", "demo/v2")) == 1
    assert [verb for _, verb, _ in lines].count("lift") == 3


async def test_quarantine_ends_with_the_version(running: Gateway) -> None:
    """New bytes under the same name are another version, and so is no version at all."""
    quarantine(running, "v2")
    await until_audited(running, "quarantine", "demo/v2")
    running.config.artifact("v2", onnx_models.doubler(2))
    running.config.model()

    async with running.worker():
        assert (await running.apply()).status_code == 200
        await until_audited(running, "lift", "demo/v2")

    assert register.load(running.data).quarantined == []
