"""The admin port of a running control process: what it shows."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from control_admin_kit import Gateway

from serving.metrics import MetricsFile


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with revision 1."""
    async with Gateway(tmp_path) as made:
        await made.start()
        yield made


async def test_readiness_needs_a_worker_with_the_current_revision(running: Gateway) -> None:
    """Health is ours alone; readiness is that somebody serves."""
    assert (await running.get("/healthz")) == {"healthy": True}
    early = await running.http.get("/readyz")
    assert early.status_code == 503
    assert early.json() == {
        "ready": False,
        "reason": "no worker serves revision 1 yet",
        "quarantined": 0,
    }

    async with running.worker():
        await running.apply(wait_seconds=20)
        assert await running.get("/readyz") == {"ready": True, "reason": "", "quarantined": 0}


async def test_the_status_shows_models_traffic_workers_and_the_store(running: Gateway) -> None:
    """Everything at a glance, in one answer."""
    running.config.traffic(
        canary={"version": "v2", "weight": 5}, shadow=[{"version": "v2", "percent": 50}]
    )
    async with running.worker():
        await running.apply(wait_seconds=20)
        status = await running.get("/api/v1/status")

    assert status["revision"] == 2
    assert status["author"] == "admin-token"
    assert status["ready"] is True
    assert status["store"]["up"] is True
    assert status["store"]["name"].startswith("Valkey ")
    [model] = status["models"]
    roles = {version["version"]: version["roles"] for version in model["versions"]}
    assert roles == {
        "v1": [{"role": "production", "percent": 95.0}],
        "v2": [{"role": "canary", "percent": 5.0}, {"role": "shadow", "percent": 50.0}],
    }
    assert model["versions"][0]["inputs"][0]["name"] == "X"
    [worker] = status["workers"]
    assert (worker["worker"], worker["state"], worker["revision"]) == ("worker-0", "ready", 2)
    assert (worker["resident_bytes"], worker["in_flight"]) == (50 << 20, 2)


async def test_metrics_add_up_the_living_and_the_dead(running: Gateway) -> None:
    """A dead worker's counters stay in the page after its file is gone."""
    folder = running.data / "metrics"
    labels = {"model": "demo", "reason": "overload"}
    dead = MetricsFile(folder / "worker-0-1-1.metrics")
    dead.counter("sluice_rejected_total", **labels).inc(5)
    path = dead.path
    dead.close()
    del dead  # the mapping holds the lock; a process's end lets go of both
    alive = MetricsFile(folder / "worker-0-2-2.metrics")
    alive.counter("sluice_rejected_total", **labels).inc(2)
    async with asyncio.timeout(60):
        while path.exists():
            await asyncio.sleep(0.02)

    page = (await running.http.get("/metrics")).text

    assert 'sluice_rejected_total{model="demo",reason="overload"} 7.0\n' in page
    assert "sluice_store_up 1.0\n" in page
    assert 'sluice_build_info{version="' in page
    alive.close()


async def test_recent_predictions_of_all_workers_are_merged_by_time(running: Gateway) -> None:
    """Newest first, over workers; one that does not answer is named and delays nobody."""
    seen: list[bytes] = []

    def answering(records: list[dict[str, Any]]) -> Any:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            body = json.dumps(records).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()

        return answer

    run = running.data / "run"
    servers = [
        await asyncio.start_unix_server(
            answering([{"time": time, "prediction_id": f"{name}{time}"} for time in times]),
            run / f"worker-{name}.sock",
        )
        for name, times in (("a", [5, 3, 1]), ("b", [4, 2]))
    ]
    (run / "worker-dead.sock").touch()
    try:
        answer = await running.get("/api/v1/predictions/recent?limit=4&model=demo")
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()

    assert [one["prediction_id"] for one in answer["predictions"]] == ["a5", "b4", "a3", "b2"]
    assert answer["unreachable"] == ["worker-dead"]
    assert all(request.startswith(b"GET /recent?limit=4&model=demo ") for request in seen)


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "", "9" * 30, "٣"])
async def test_a_limit_that_is_no_number_is_named(running: Gateway, limit: str) -> None:
    """The message says which parameter, and its range."""
    answer = await running.http.get("/api/v1/predictions/recent", params={"limit": limit})

    assert answer.status_code == 400
    assert "`limit` must be a number from 1 to 1000" in answer.json()["error"]


async def test_unknown_paths_and_methods_are_json_errors(running: Gateway) -> None:
    """Nothing but `{"error": …}`, also from the router itself."""
    missing = await running.http.get("/api/v2/nothing")
    wrong = await running.http.delete("/api/v1/status")
    slash = await running.http.get("/api/v1/status/")

    assert (missing.status_code, list(missing.json())) == (404, ["error"])
    assert (wrong.status_code, list(wrong.json())) == (405, ["error"])
    assert "GET" in wrong.headers["allow"]
    assert slash.status_code == 404


async def test_the_private_socket_answers_the_same(running: Gateway) -> None:
    """The engine and the command line ask over a socket that only the owner can open."""
    path = running.data / "run" / "control.sock"
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        status = (await http.get("/api/v1/status")).json()
        refused = await http.post("/api/v1/config/apply", json={"directory": "/"})

    assert path.stat().st_mode & 0o777 == 0o600
    assert status["revision"] == 1
    assert refused.status_code == 401


async def test_every_route_is_described_and_every_description_is_a_route(
    running: Gateway,
) -> None:
    """OpenAPI lists exactly what the applications route, and every reference resolves."""
    document = await running.get("/openapi.json")
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    app = running.control._servers()[0].config.app
    routed = {
        (method, route.path)
        for route in app.routes  # type: ignore[union-attr]
        for method in route.methods - {"HEAD"}
    }

    assert described == routed
    schemas = document["components"]["schemas"]
    references = {
        part.partition('"')[0].rpartition("/")[2]
        for part in json.dumps(document).split('"$ref": "')[1:]
    }
    assert references <= set(schemas)
    assert document["paths"]["/api/v1/config/apply"]["post"]["security"] == [{"token": []}]


async def test_pages_are_self_contained(running: Gateway) -> None:
    """No script and nothing from elsewhere; the policy forbids it too."""
    for path in ("/", "/docs"):
        answer = await running.http.get(path)
        assert answer.status_code == 200
        assert "<script" not in answer.text
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "/api/v1/config/apply" in (await running.http.get("/docs")).text
    assert "demo" in (await running.http.get("/")).text
