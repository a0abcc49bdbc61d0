import asyncio
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent / "stand_ins"))

from running_engine import running

from serving.control.admin.answers import (
    ModelStatus,
    RoleShare,
    Status,
    StoreStatus,
    VersionStatus,
    WorkerStatus,
)
from serving.control.fleet.rates import Rate

BOUND_SECONDS = 60

STATUS = Status(
    version="0.1.0",
    ready=True,
    revision=4,
    author="ada",
    published_at=1_700_000_000.0,
    store=StoreStatus(name="valkey 9.1.2", up=True),
    models=[
        ModelStatus(
            model="employment",
            loaded=True,
            placement="inline",
            versions=[
                VersionStatus(
                    version=version,
                    sha256="0" * 64,
                    roles=roles,
                    inputs=[],
                    outputs=[],
                    batchable=True,
                    not_ready=not_ready,
                )
                for version, roles, not_ready in (
                    ("v1", [RoleShare(role="production", percent=90.0)], {}),
                    ("v2", [RoleShare(role="canary", percent=10.0)], {"worker-0": "too big"}),
                )
            ],
        )
    ],
    workers=[
        WorkerStatus(
            worker="worker-0", state="ready", revision=4, pid=77, resident_bytes=64 << 20,
            in_flight=5,
        )
    ],
    rates=[
        Rate(
            model="employment", version="v1", role="production", requests_per_second=12.5,
            failed_per_second=0.5,
        )
    ],
)  # fmt: skip


def sluice_status(
    *words: object, cwd: Path, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run the command in `cwd`, on a wide terminal."""
    code = "from serving.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")} | {
        "COLUMNS": "200", **environment,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", code, "status", *map(str, words)],
        capture_output=True, text=True, timeout=BOUND_SECONDS, check=False, cwd=cwd,
        env=environment,
    )  # fmt: skip


@contextmanager
def control(body: bytes, status: int = 200) -> Iterator[tuple[str, list[str | None]]]:
    """An admin port that answers every GET with `body`; its URL and the credentials it saw."""
    seen: list[str | None] = []

    class Answering(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(status if self.path == "/api/v1/status" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


async def test_processes_are_shown_although_control_does_not_answer(tmp_path: Path) -> None:
    """The stand-in control speaks no HTTP; what the engine knows is shown all the same."""
    async with running(tmp_path, workers=2) as engine:
        ended = await asyncio.to_thread(sluice_status, "--data", tmp_path / "data", cwd=tmp_path)

        assert ended.returncode == 0, ended.stderr
        rows = {line.split()[0]: line.split() for line in ended.stdout.splitlines() if line}
        for process in engine.processes:
            assert rows[process.spec.name][1:3] == [str(process.report.pid), "ready"]
        assert rows["worker-1"][5:7] == ["7", "3"]
        assert engine.addresses.http in ended.stdout
        assert "the control process at" in ended.stdout


async def test_json_holds_engine_and_processes(tmp_path: Path) -> None:
    """Machine output says the same."""
    async with running(tmp_path) as engine:
        pids = [process.report.pid for process in engine.processes]
        ended = await asyncio.to_thread(
            sluice_status, "--data", tmp_path / "data", "--json", cwd=tmp_path
        )

    overview = json.loads(ended.stdout)
    assert overview["engine"]["pid"] == os.getpid()
    assert [p["name"] for p in overview["processes"]] == ["store", "control", "worker-0"]
    assert [p["pid"] for p in overview["processes"]] == pids
    assert overview["control"] is None
    assert "does not answer" in overview["control_problem"]


def test_nothing_running_exits_with_three_and_a_hint(tmp_path: Path) -> None:
    """A script can tell "no gateway" from every other answer."""
    ended = sluice_status("--data", tmp_path, cwd=tmp_path)

    assert ended.returncode == 3
    assert f"no gateway runs on {tmp_path}" in ended.stderr
    assert "sluice up" in ended.stderr


def test_an_admin_port_without_anybody_exits_with_three(tmp_path: Path) -> None:
    """Port 1 is nobody's."""
    ended = sluice_status("--admin", "http://127.0.0.1:1", cwd=tmp_path)

    assert ended.returncode == 3
    assert "does not answer" in ended.stderr


def test_models_roles_and_rates_are_shown(tmp_path: Path) -> None:
    """Versions with their share, readiness with its reason, and the traffic."""
    with control(msgspec.json.encode(STATUS)) as (url, _):
        ended = sluice_status("--admin", url, cwd=tmp_path)

    assert ended.returncode == 0, ended.stderr
    lines = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert "employment v1 production 90 % yes 12.5 0.5" in lines
    assert "employment v2 canary 10 % no (worker-0: too big) 0.0 0.0" in lines
    assert "worker-0 77 ready 4 5 0% 64 MiB" in lines
    assert any(line.startswith("revision 4 by ada, ") for line in lines)


def test_json_of_a_remote_gateway_is_controls_own_answer(tmp_path: Path) -> None:
    """Nothing is lost on the way."""
    with control(msgspec.json.encode(STATUS)) as (url, _):
        ended = sluice_status("--json", cwd=tmp_path, SLUICE_ADMIN=url)

    assert msgspec.json.decode(msgspec.json.encode(json.loads(ended.stdout)["control"])) == (
        msgspec.to_builtins(STATUS)
    )


def test_a_token_from_the_environment_is_sent(tmp_path: Path) -> None:
    """Gateways beyond loopback want one even for reading."""
    with control(msgspec.json.encode(STATUS)) as (url, seen):
        sluice_status("--admin", url, cwd=tmp_path, SLUICE_TOKEN="t0ken")

    assert seen == ["Bearer t0ken"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_which_credential_is_missing(tmp_path: Path, status: int) -> None:
    """The variable and the role are named; a gateway did answer, so this is a no."""
    with control(b'{"error": "no"}', status) as (url, _):
        ended = sluice_status("--admin", url, cwd=tmp_path)

    assert ended.returncode == 1
    assert "operator" in ended.stderr
    assert "$SLUICE_TOKEN" in ended.stderr


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"version": 1}'])
def test_another_server_is_not_taken_for_a_gateway(tmp_path: Path, body: bytes) -> None:
    """Whatever listens there, it is not ours, and that is said."""
    with control(body) as (url, _):
        ended = sluice_status("--admin", url, cwd=tmp_path)

    assert ended.returncode == 3
    assert "not as a gateway's admin port does" in ended.stderr


def test_two_names_for_one_gateway_are_wrong_usage(tmp_path: Path) -> None:
    """--data and --admin contradict each other."""
    ended = sluice_status("--data", tmp_path, "--admin", "http://127.0.0.1:1", cwd=tmp_path)

    assert ended.returncode == 2
