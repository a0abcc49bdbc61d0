"""A worker process without an engine: its life in this process."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from worker_process_kit import (
    BOUND,
    DOUBLE_21,
    Site,
    ask,
    grpc_ask,
    listening,
    read_answer,
    running_site,
    until,
)

from serving.config.snapshot_codec import encode_snapshot
from serving.metrics_folder import totals
from serving.worker.command_line import parse_arguments
from serving.worker.process import Worker
from serving.worker.settings import load_settings


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site with a running store."""
    with running_site(tmp_path) as made:
        yield made


@pytest.fixture
def collector() -> Iterator[None]:
    """A worker tunes the garbage collector of its process; here that is put back."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@contextlib.asynccontextmanager
async def living(site: Site) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker as a task; drained at the end if it still runs."""
    arguments = parse_arguments(site.arguments(0))
    arguments.pid = os.getpid()
    worker = Worker(arguments, load_settings(site.configuration, site.data))
    task = asyncio.create_task(worker.run())
    try:
        await until(lambda: site.private(0, "GET /healthz"))
        yield task
        async with asyncio.timeout(BOUND):
            if not task.done():
                assert await site.private(0, "POST /drain") == (200, {"draining": True})
            await task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=BOUND)


@pytest.mark.usefixtures("collector")
async def test_a_worker_listens_once_it_has_something_to_serve(site: Site) -> None:
    """It is healthy at once, takes connections with its first table, and leaves in order."""
    async with living(site):
        assert await site.private(0, "GET /healthz") == (200, {"healthy": True})
        early = await site.private(0, "GET /readyz")
        listened_early = listening(site.http)
        await site.publish(site.snapshot())
        await site.ready(0)
        answer = await ask(site.http)
        said = await until(lambda: (r := site.report(0)) and r.state == "ready" and r)

    told = {"refused_revision": 0, "refused_reason": ""}
    assert early == (503, {"ready": False, "state": "starting", "revision": 0, **told})
    assert not listened_early
    assert (answer.status, answer.body["outputs"][0]["data"]) == (200, [42.0])
    assert (said.revision, said.pid) == (1, os.getpid())
    assert site.report(0) is None
    assert not listening(site.http)
    assert await site.private(0, "GET /healthz") is None
    counted = totals(site.data / "metrics")
    assert counted["sluice_requests_total", ("doubler", "v1", "production", "http", "OK")] == [1]


@pytest.mark.usefixtures("collector")
async def test_a_worker_without_a_store_serves_from_its_disk(site: Site) -> None:
    """The last good snapshot is enough to answer over both protocols."""
    snapshot = site.snapshot(7)
    (site.data / "snapshot.json").write_bytes(encode_snapshot(snapshot))
    site.store.kill()

    async with living(site):
        await site.ready(0, 7)
        over_http = await ask(site.http)
        over_grpc = await grpc_ask(site.grpc)

    assert over_http.body["outputs"][0]["data"] == [42.0]
    assert over_grpc == "OK"


@pytest.mark.usefixtures("collector")
async def test_a_revision_that_cannot_be_loaded_changes_nothing(site: Site) -> None:
    """A model file gone from the disk is the new revision's trouble, not that of the old one."""
    good = site.snapshot(1)
    staged = {
        model: {
            version: msgspec.structs.replace(one, path=f"{one.path}.gone", sha256="0" * 64)
            for version, one in versions.items()
        }
        for model, versions in good.staged.items()
    }

    async with living(site):
        await site.publish(good)
        await site.ready(0, 1)
        await site.publish(msgspec.structs.replace(good, revision=2, staged=staged))
        said = await until(lambda: (r := site.report(0)) and r.refused_revision and r)
        answer = await ask(site.http)
        ready = await site.private(0, "GET /readyz")

    assert (said.revision, said.refused_revision) == (1, 2)
    assert said.refused_reason
    assert answer.status == 200
    told = {"refused_revision": 2, "refused_reason": said.refused_reason}
    assert ready == (200, {"ready": True, "state": "ready", "revision": 1, **told})


@pytest.mark.usefixtures("collector")
async def test_whoever_supervises_sees_load_and_recent_records(site: Site) -> None:
    """The private socket shows what is in flight, what is connected, and what was answered."""
    async with living(site):
        await site.publish(site.snapshot())
        await site.ready(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", site.http)
        for _ in range(3):
            writer.write(DOUBLE_21)
            await read_answer(reader)
        load = await site.private(0, "GET /load")
        recent = await site.private(0, "GET /recent?limit=2&model=doubler")
        others = await site.private(0, "GET /recent?model=patient")
        bad = await site.private(0, "GET /recent?limit=many")
        writer.close()

    assert load is not None
    assert load[0] == 200
    assert (load[1]["in_flight"], load[1]["connections"]) == (0, 1)
    assert load[1]["busy_seconds"] > 0
    assert recent is not None
    assert [record["code"] for record in recent[1]] == ["OK", "OK"]
    assert others == (200, [])
    assert bad is not None
    assert bad[0] == 400


@pytest.mark.usefixtures("collector")
async def test_sigterm_before_the_first_table_ends_a_worker(site: Site) -> None:
    """A worker that never served has nothing to drain."""
    async with living(site) as task:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(BOUND):
            await task

    assert await site.private(0, "GET /healthz") is None
