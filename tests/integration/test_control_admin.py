import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import onnx_models
import pytest
import trustme
from control_kit import ConfigDirectory, FakeWorker, Valkey

from serving.config.identity import hash_token
from serving.control.admin import operations_of
from serving.control.audit import verify
from serving.control.process import Control, parse_arguments
from serving.control.redis_store import RedisStore
from serving.metrics import MetricsFile
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect
from serving.tasks import end

REFUSED = "no memory left for <b>it</b>"


class Gateway:
    """A control process's insides on real sockets, a real store, and doubles of workers."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.config = ConfigDirectory(folder / "config")
        self.valkey = Valkey(folder / "valkey")
        self.store = RedisStore(self.valkey.url)
        self.verify: Any = True
        self._stack = AsyncExitStack()

    async def start(self, **gateway: Any) -> None:
        """Start control and wait until it has published."""
        self.config.gateway(**gateway)
        self.control = Control(
            parse_arguments(
                [
                    *("--data", str(self.data), "--config", str(self.config.root)),
                    *("--admin", "127.0.0.1:0", "--store", self.valkey.url),
                ]
            )
        )
        running = asyncio.create_task(self.control.run())
        self._stack.push_async_callback(self._end, running)
        async with asyncio.timeout(60):
            while not self.control.publisher.started:
                if running.done():
                    running.result()
                await asyncio.sleep(0.01)
        scheme = "https" if self.verify is not True else "http"
        self.url = f"{scheme}://{self.control.address}"
        self.token = (self.data / "admin.token").read_text().strip()
        self.http = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self.url, verify=self.verify, timeout=60)
        )
        self.admin = {"authorization": f"Bearer {self.token}"}

    async def _end(self, running: "asyncio.Task[None]") -> None:
        self.control._stop.set()
        await running

    async def close(self) -> None:
        """Stop everything."""
        await self._stack.aclose()
        await self.store.close()
        self.valkey.stop()

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of a successful GET."""
        answer = await self.http.get(path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def verb(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST as admin."""
        return await self.http.post(path, json=body, headers=self.admin, **options)

    async def apply(self, **more: Any) -> httpx.Response:
        """Apply the directory."""
        return await self.verb("/api/v1/config/apply", {"directory": str(self.config.root), **more})

    @asynccontextmanager
    async def worker(self, name: str = "worker-0", refuse: str = "") -> AsyncIterator[FakeWorker]:
        """A worker that reports."""
        worker = FakeWorker(self.store, name, refuse)
        task = asyncio.create_task(worker.run())
        try:
            await asyncio.wait_for(worker.reported.wait(), 30)
            yield worker
        finally:
            await end(task)

    def audit(self) -> list[dict[str, Any]]:
        """The audit log, which must be unbroken."""
        path = self.data / "journal" / "audit.jsonl"
        if not path.exists():
            return []
        assert verify(path) == []
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway that is not started."""
    made = Gateway(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def running(gateway: Gateway) -> Gateway:
    """A gateway with revision 1."""
    await gateway.start()
    return gateway


# --- reading --------------------------------------------------------------------------------


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


async def test_the_configuration_is_shown_without_secrets(gateway: Gateway) -> None:
    """Whatever is read over the port, the store's password is not in it, nor in the journal."""
    await gateway.start(store="redis://user:hunter2@localhost:1/0")
    pages = [
        (await gateway.http.get(path)).text
        for path in ("/api/v1/config", "/api/v1/status", "/api/v1/history", "/", "/metrics")
    ]
    config = json.loads(pages[0])

    assert config["gateway"]["store"] == "redis://***@localhost:1/0"
    assert config["models"]["demo"]["traffic"]["production"] == "v1"
    assert config["staged"]["demo"]["v1"]["sha256"] == gateway.config.digests["v1"]
    journal = (gateway.data / "journal" / "snapshots.jsonl").read_text()
    for text in (*pages, journal):
        assert "hunter2" not in text
        assert gateway.token not in text
    assert str(gateway.data) not in "".join(pages)


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


# --- changing -------------------------------------------------------------------------------


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


# --- who may --------------------------------------------------------------------------------


async def test_roles_decide_over_every_endpoint(gateway: Gateway) -> None:
    """From the route table itself: nobody, infer, operator and admin on every operation."""
    roles = ("infer", "operator", "admin")
    (gateway.config.root / "tokens.yaml").write_text(
        "tokens:\n"
        + "".join(
            f"  - {{name: {role}, sha256: {hash_token(role)}, roles: [{role}]}}\n" for role in roles
        )
    )
    await gateway.start(auth={"tokens": "tokens.yaml"})
    allowed = {
        "open": {None, *roles},
        "read": {"operator", "admin"},
        "operator": {"operator", "admin"},
        "admin": {"admin"},
    }
    for operation in operations_of(gateway.control._plane):
        path = operation.path.replace("{model}", "nobody")
        for role in (None, *roles, "stranger"):
            headers = {"authorization": f"Bearer {role}"} if role else {}
            answer = await gateway.http.request(operation.method, path, headers=headers)
            refusal = 403 if role in roles else 401
            known = role if role != "stranger" else None
            if known in allowed[operation.need]:
                assert answer.status_code not in (401, 403), (path, role)
            else:
                assert answer.status_code == refusal, (path, role)


# --- quarantine -----------------------------------------------------------------------------


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


async def test_an_unknown_caller_is_refused_audited_and_changes_nothing(running: Gateway) -> None:
    """No verb without a credential, and every attempt leaves its line."""
    body = {"directory": str(running.config.root)}
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
        answer = await running.http.post("/api/v1/config/apply", json=body, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    answer = await running.http.post("/api/v1/config/apply?token=" + running.token, json=body)
    assert answer.status_code == 401

    lines = running.audit()
    assert [line["who"] for line in lines] == ["anonymous"] * 4
    assert all(line["result"].startswith("Unauthenticated: ") for line in lines)
    assert "wrong" not in json.dumps(lines)
    assert (await running.get("/api/v1/status"))["revision"] == 1


async def test_a_page_in_a_browser_is_no_accomplice(running: Gateway) -> None:
    """A foreign Origin on a verb, and a name that was rebound to us, are refused."""
    body = {"directory": str(running.config.root)}
    for origin in ("https://evil.example", "null", "http://localhost:9"):
        answer = await running.http.post(
            "/api/v1/config/apply", json=body, headers={**running.admin, "origin": origin}
        )
        assert answer.status_code == 403
    for path in ("/", "/api/v1/status", "/metrics", "/healthz"):
        answer = await running.http.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 403
    own = await running.http.post(
        "/api/v1/config/apply", json=body, headers={**running.admin, "origin": running.url}
    )
    assert own.status_code == 200


async def test_the_listener_speaks_tls_and_asks_for_client_certificates(
    gateway: Gateway,
) -> None:
    """With `client_ca` only holders of a certificate get through the handshake."""
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("ann@example.org")
    root = gateway.config.root
    server.private_key_pem.write_to_path(root / "key.pem")
    (root / "key.pem").chmod(0o600)
    server.cert_chain_pems[0].write_to_path(root / "cert.pem")
    authority.cert_pem.write_to_path(root / "ca.pem")
    tls = {"cert": "cert.pem", "key": "key.pem", "client_ca": "ca.pem"}
    import ssl

    with_certificate = ssl.create_default_context()
    authority.configure_trust(with_certificate)
    client.configure_cert(with_certificate)
    gateway.verify = with_certificate
    await gateway.start(listen={"admin": {"address": "127.0.0.1:0", "tls": tls}})

    assert (await gateway.get("/healthz")) == {"healthy": True}
    origin = {**gateway.admin, "origin": gateway.url}
    verb = await gateway.http.post("/v2/repository/models/demo/load", headers=origin)
    assert verb.status_code == 200
    without = ssl.create_default_context()
    authority.configure_trust(without)
    async with httpx.AsyncClient(verify=without) as stranger:
        with pytest.raises(httpx.TransportError):
            await stranger.get(gateway.url + "/healthz")


# --- the description ------------------------------------------------------------------------


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
