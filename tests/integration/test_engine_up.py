import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from serving.engine.lifecycle import State
from serving.engine.report import read_report

HERE = Path(__file__).parent
DEMO = HERE.parents[1] / "configs" / "demo"
UP = (sys.executable, str(HERE / "stand_ins" / "up.py"))
BOUND_SECONDS = 60

Up = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """The demo on free ports."""
    copy = tmp_path / "demo"
    shutil.copytree(DEMO, copy, ignore=shutil.ignore_patterns(".sluice"))
    gateway = copy / "gateway.yaml"
    text = gateway.read_text()
    for port in ("8000", "8001", "8002"):
        text = text.replace(f"127.0.0.1:{port}", "127.0.0.1:0")
    text = text.replace("kind: ray", "kind: local")
    gateway.write_text(text)
    return copy


@pytest.fixture
def up() -> Iterator[Up]:
    """Start `sluice up` over stand-ins; whatever is left is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object) -> "subprocess.Popen[str]":
        command = [*UP, *map(str, words)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line_of(process: "subprocess.Popen[str]", *, holding: str, error: bool = False) -> str:
    """The next line of output that has these words."""
    stream = process.stderr if error else process.stdout
    assert stream is not None
    for line in stream:
        if holding in line:
            return line
    pytest.fail(f"ended without saying {holding!r}")


def test_json_prints_one_line_of_addresses_when_everything_answers(
    up: Up, configuration: Path
) -> None:
    """A script reads one line and can use every port at once; SIGTERM ends with 0."""
    running = up(configuration, "--json")

    started = json.loads(line_of(running, holding="{"))
    for name in ("http", "grpc", "admin"):
        host, _, port = started[name].rpartition(":")
        socket.create_connection((host, int(port)), BOUND_SECONDS).close()
    assert started["pid"] == running.pid
    assert started["data"] == str(configuration / ".sluice")
    assert started["admin_token_file"] == str(configuration / ".sluice" / "admin.token")

    running.terminate()
    rest, _ = running.communicate(timeout=BOUND_SECONDS)
    assert (running.returncode, rest) == (0, "")


def test_a_person_is_shown_progress_addresses_and_a_request(up: Up, configuration: Path) -> None:
    """Each stage is told once, then what to do next; Ctrl-C leaves no process behind."""
    running = up(configuration, "--workers", 2)
    line_of(running, holding="Ctrl-C stops everything")
    report = read_report(configuration / ".sluice" / "run" / "engine.json")
    assert report is not None
    children = [process.pid for process in report.processes]
    assert [process.state for process in report.processes] == [State.READY] * 4

    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=BOUND_SECONDS)

    assert running.returncode == 0
    for stage in ("store    ready", "control  ready", "models   ready", "workers  2 of 2 ready"):
        assert told.count(stage) == 1
    assert not any(psutil.pid_exists(pid) for pid in children if pid is not None)
    assert not (configuration / ".sluice" / "run" / "engine.json").exists()


def test_the_printed_request_names_the_real_port_and_the_example(
    up: Up, configuration: Path
) -> None:
    """The line can be pasted: it has the resolved port, the model, and a file that exists."""
    running = up(configuration)

    words = shlex.split(line_of(running, holding="curl"))

    report = read_report(configuration / ".sluice" / "run" / "engine.json")
    assert report is not None
    assert words == [
        "curl", "-s", f"http://{report.addresses.http}/v2/models/employment/infer",
        "-d", f"@{configuration / 'example-request.json'}",
    ]  # fmt: skip


def test_a_faulty_configuration_starts_nothing(up: Up, configuration: Path) -> None:
    """Every mistake is told with its line, as `sluice check` does, and the exit code is 1."""
    with (configuration / "gateway.yaml").open("a") as file:
        file.write("limts: {}\n")

    _, told = (running := up(configuration)).communicate(timeout=BOUND_SECONDS)

    assert running.returncode == 1
    assert "gateway.yaml:" in told
    assert "limts" in told
    assert not (configuration / ".sluice").exists()


def test_a_port_in_use_is_told_with_the_option_that_changes_it(up: Up, configuration: Path) -> None:
    """A second gateway is refused instead of sharing the connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        gateway = configuration / "gateway.yaml"
        gateway.write_text(
            gateway.read_text().replace("http: 127.0.0.1:0", f"http: 127.0.0.1:{port}")
        )

        _, told = (running := up(configuration)).communicate(timeout=BOUND_SECONDS)

    assert running.returncode == 1
    assert f"127.0.0.1:{port} is in use" in " ".join(told.split())
    assert "listen.http" in told


def test_two_ups_of_one_directory_are_refused(up: Up, configuration: Path) -> None:
    """The second says what runs and exits with 1; the first goes on."""
    first = up(configuration, "--json")
    line_of(first, holding="{")

    _, told = (second := up(configuration)).communicate(timeout=BOUND_SECONDS)

    assert second.returncode == 1
    assert "another gateway is running" in told
    assert first.poll() is None


def test_a_program_that_keeps_dying_ends_the_start_with_its_last_words(
    up: Up, configuration: Path
) -> None:
    """The reason is on the screen, and nothing is left running."""
    _, told = (running := up(configuration, "--worker-flag=--crash")).communicate(
        timeout=BOUND_SECONDS
    )

    assert running.returncode == 1
    assert "worker-0 failed" in told
    assert "worker-0 cannot go on: the reason" in told
    assert list((configuration / ".sluice" / "run").iterdir()) == []


def test_ctrl_c_before_everything_is_ready_stops_cleanly(up: Up, configuration: Path) -> None:
    """Giving up on a slow start is no error and leaves nothing."""
    running = up(configuration, "--worker-flag=--never-ready")
    line_of(running, holding="control  ready", error=True)

    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=BOUND_SECONDS)

    assert (running.returncode, said) == (0, "")
    assert list((configuration / ".sluice" / "run").iterdir()) == []


def test_a_second_ctrl_c_does_not_wait_for_the_drain(up: Up, configuration: Path) -> None:
    """A worker that ignores SIGTERM would hold the drain for half a minute."""
    running = up(configuration, "--worker-flag=--ignore-sigterm")
    line_of(running, holding="Ctrl-C stops everything")

    running.send_signal(signal.SIGINT)
    line_of(running, holding="Ctrl-C again to kill", error=True)
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=30)  # less than the drain would take

    assert running.returncode == 0


def test_data_may_live_elsewhere(up: Up, configuration: Path, tmp_path: Path) -> None:
    """`--data` keeps the configuration directory free of state."""
    running = up(configuration, "--data", tmp_path / "state", "--json")

    line_of(running, holding="{")

    assert os.listdir(tmp_path / "state" / "store")  # noqa: PTH208
    assert not (configuration / ".sluice").exists()


def test_what_is_not_ready_in_time_ends_the_start(up: Up, configuration: Path) -> None:
    """Patience is bounded: the message says what was missing, and nothing is left behind."""
    data = configuration / ".sluice"

    ended = up(configuration, "--patience", "1s", "--worker-flag=--never-ready")
    _, errors = ended.communicate(timeout=BOUND_SECONDS)

    assert ended.returncode == 1
    assert "not ready after 1 s; still waiting for: models (loading), workers (0 of 1" in errors
    assert "Traceback" not in errors
    assert not list((data / "run").glob("*.sock"))
    assert read_report(data / "run" / "engine.json") is None
