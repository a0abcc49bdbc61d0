import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_kit import ConfigDirectory, Valkey
from waiting_kit import until

# A stand-in for an engine: it starts control, tells its pid, and can be killed.
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "serving.control.process", *sys.argv[1:],
                          "--parent", str(os.getpid())])
print(child.pid, flush=True)
sys.stdin.read()
child.terminate()
sys.exit(child.wait())
"""


class Home:
    """A data directory, a configuration and a store."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.config = ConfigDirectory(folder / "config")
        self.valkey = Valkey(folder / "valkey")
        self.processes: list[subprocess.Popen[str]] = []

    def arguments(self, admin: str = "127.0.0.1:0") -> list[str]:
        """What an engine passes."""
        return [
            *("--data", str(self.data), "--config", str(self.config.root)),
            *("--admin", admin, "--store", self.valkey.url),
        ]

    def start(self, *more: str, admin: str = "127.0.0.1:0") -> "subprocess.Popen[str]":
        """Start control, with this process as its parent."""
        return self._popen(
            [
                *(sys.executable, "-m", "serving.control.process", *self.arguments(admin)),
                *("--parent", str(os.getpid()), *more),
            ]
        )

    def start_under_engine(self) -> "subprocess.Popen[str]":
        """Start control under another process."""
        return self._popen([sys.executable, "-c", PARENT, *self.arguments()])

    def _popen(self, command: list[str]) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def revision(self) -> int:
        """What control says it has published; 0 if it does not answer."""
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(str(self.data / "run" / "control.sock"))
                asking.sendall(
                    b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                answer = asking.makefile("rb").read()
            except OSError:
                return 0
        body = answer.partition(b"\r\n\r\n")[2]
        return int(json.loads(body)["revision"]) if body else 0

    def until_revision(self, revision: int) -> None:
        """Wait until it is published and the start is over."""
        epoch = self.data / "run" / "control.epoch"
        until(lambda: self.revision() == revision and epoch.exists(), f"revision {revision}")

    def close(self) -> None:
        """Leave nothing behind."""
        for process in self.processes:
            process.kill()
            process.communicate()
        self.valkey.stop()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Somewhere to start control."""
    made = Home(tmp_path)
    yield made
    made.close()


def test_sigterm_ends_it_in_order(home: Home) -> None:
    """Exit code 0, no socket left, and everything it decided is on disk."""
    process = home.start()
    home.until_revision(1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    assert not (home.data / "run" / "control.sock").exists()
    assert "Traceback" not in errors
    assert (home.data / "journal" / "snapshots.jsonl").exists()


def test_ctrl_c_is_the_engines_business(home: Home) -> None:
    """SIGINT reaches the whole terminal group; control waits for its engine's word."""
    process = home.start()
    home.until_revision(1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 0


def test_it_dies_with_its_engine(home: Home) -> None:
    """An engine that is killed leaves no control process behind."""
    engine = home.start_under_engine()
    assert engine.stdout
    control = int(engine.stdout.readline())
    home.until_revision(1)
    engine.kill()
    engine.wait()

    until(lambda: not Path(f"/proc/{control}").exists(), "control outlived its engine")


def test_a_killed_control_comes_back_with_what_was_decided(home: Home) -> None:
    """After kill -9 under the same engine an edit that nobody applied does not slip in."""
    first = home.start()
    home.until_revision(1)
    first.kill()
    first.wait()
    home.config.traffic(canary={"version": "v2", "weight": 50})
    home.start()
    until(lambda: home.revision() == 1, "control did not come back")

    assert len((home.data / "journal" / "snapshots.jsonl").read_text().splitlines()) == 1


def test_a_new_engine_serves_the_edited_directory(home: Home) -> None:
    """Starting the gateway again takes the configuration as it is now."""
    first = home.start_under_engine()
    home.until_revision(1)
    first.communicate("", timeout=60)
    home.config.traffic(canary={"version": "v2", "weight": 50})
    home.start_under_engine()

    home.until_revision(2)


def test_a_broken_edit_does_not_keep_a_new_engine_from_serving(home: Home) -> None:
    """The last good configuration is served, and the log says what is wrong."""
    first = home.start_under_engine()
    home.until_revision(1)
    first.communicate("", timeout=60)
    (home.config.root / "models" / "demo.yaml").write_text("model: [")
    second = home.start_under_engine()
    home.until_revision(1)
    _, errors = second.communicate("", timeout=60)

    assert "models/demo.yaml" in errors
    assert "revision 1 goes on" in errors


def test_a_first_start_with_mistakes_says_all_of_them_and_exits(home: Home) -> None:
    """Exit code 1 and every problem on standard error; nothing is published."""
    home.config.model(traffic={"production": "v9"}, outputs=["nope"])
    process = home.start()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "v9" in errors
    assert "nope" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("admin", ["0.0.0.0:0", "[::]:0"])
def test_an_open_listener_must_be_forced_by_name(home: Home, admin: str) -> None:
    """Beyond loopback without TLS or tokens: only with --insecure-bind."""
    refused = home.start(admin=admin)
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "--insecure-bind" in errors

    forced = home.start("--insecure-bind", admin=admin)
    home.until_revision(1)
    forced.terminate()
    forced.communicate(timeout=60)
    assert forced.returncode == 0


def test_a_readable_admin_token_stops_the_start(home: Home) -> None:
    """A token that others can read is not used."""
    home.data.mkdir()
    (home.data / "admin.token").write_text("known\n")
    (home.data / "admin.token").chmod(0o644)
    process = home.start()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "chmod 600" in errors
    assert "known" not in errors


def test_a_taken_port_is_said(home: Home) -> None:
    """Another program on the admin port is an error, not a silent share."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = home.start(admin=f"127.0.0.1:{taken.getsockname()[1]}")
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "in use" in errors.lower()
    assert "Traceback" not in errors


def test_an_evicting_store_stops_the_start(tmp_path: Path) -> None:
    """A store that would throw away routes is refused with what to do."""
    home = Home(tmp_path)
    home.valkey.stop()
    home.valkey = Valkey(tmp_path / "valkey", "--maxmemory-policy", "allkeys-random")
    try:
        process = home.start()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "noeviction" in errors
    finally:
        home.close()
