import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from control_kit import ConfigDirectory

from serving.engine.report import EngineReport

SLUICE = (sys.executable, "-c", "from serving.cli import main; main()")
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")
} | {"NO_COLOR": "1", "COLUMNS": "200"}


class Gateway:
    """A whole gateway started by `sluice up`."""

    def __init__(self, folder: Path) -> None:
        self.config = ConfigDirectory(folder / "config")
        self.config.gateway(
            listen=dict.fromkeys(("http", "grpc", "admin"), "127.0.0.1:0"), engine={}
        )
        self.data = self.config.root / ".sluice"
        self.log = (folder / "up.log").open("w+")
        self.process = subprocess.Popen(
            [*SLUICE, "up", str(self.config.root)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
        )
        end = time.monotonic() + 90
        while "Sluice is up" not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.05)
        self.report = msgspec.json.decode(
            (self.data / "run" / "engine.json").read_bytes(), type=EngineReport
        )

    def said(self) -> str:
        """What `sluice up` printed."""
        return Path(self.log.name).read_text()

    def close(self) -> None:
        """Stop it as Ctrl-C would."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self.log.close()

    def run(
        self, *arguments: str, code: int = 0, stdin: str | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run one command, which must exit with `code`."""
        done = subprocess.run(
            [*SLUICE, *arguments],
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=90,
            env=ENVIRONMENT | environment,
            check=False,
        )
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for this file."""
    made = Gateway(tmp_path_factory.mktemp("gateway"))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def as_it_was(gateway: Gateway) -> None:
    """Every test begins with v1 in production, applied."""
    gateway.config.digests = {name: gateway.config.digests[name] for name in ("v1", "v2")}
    gateway.config.traffic()
    gateway.run("apply", str(gateway.config.root), "--yes")


def test_a_plan_shows_what_would_change_and_changes_nothing(gateway: Gateway) -> None:
    """Lines for people, the same as JSON for programs."""
    root = str(gateway.config.root)
    assert gateway.run("plan", root).stdout == "nothing changes\n"
    gateway.config.traffic(canary={"version": "v2", "weight": 10})
    shown = gateway.run("plan", root).stdout
    plan = gateway.json("plan", root)

    assert "+ demo.traffic.canary: version v2, weight 10\n" in shown
    assert "moves 10 % of the keys of demo" in shown
    assert plan["plan"]["moved_keys"] == {"demo": 10.0}
    assert gateway.json("plan", root)["revision"] == plan["revision"]


def test_an_invalid_configuration_exits_with_1_and_its_problems(gateway: Gateway) -> None:
    """Both commands say file, line and key; nothing is published."""
    root = str(gateway.config.root)
    before = gateway.json("plan", root)["revision"]
    gateway.config.model(traffic={"production": "v9"})
    for command in (["plan", root], ["apply", root, "--yes"]):
        errors = gateway.run(*command, code=1).stderr
        assert "models/demo.yaml:" in errors
        assert "v9" in errors
    gateway.config.traffic()

    assert gateway.json("plan", root)["revision"] == before


def test_apply_is_served_by_the_worker_when_it_returns(gateway: Gateway) -> None:
    """The next inference is answered by the new version."""
    gateway.config.traffic(production="v2")
    answer = gateway.json("apply", str(gateway.config.root), "--yes", "--reason", "better")
    asked = gateway.json("infer", "demo", "--data", str(gateway.data), "--input", "X=[[3]]")

    assert answer["published"] is True
    assert [worker["applied"] for worker in answer["workers"]] == [True]
    assert asked["model_version"] == "v2"


def test_a_stale_expectation_exits_with_1(gateway: Gateway) -> None:
    """Somebody else was faster."""
    gateway.config.traffic(production="v2")
    done = gateway.run(
        "apply", str(gateway.config.root), "--yes", "--expected-revision", "0", code=1
    )

    assert "revision" in done.stderr
    assert "hint: `sluice plan DIR`" in done.stderr


def test_nobody_to_ask_is_wrong_usage(gateway: Gateway) -> None:
    """Without a terminal apply insists on --yes."""
    done = gateway.run("apply", str(gateway.config.root), code=2)

    assert "--yes" in done.stderr


@pytest.mark.parametrize(("typed", "code", "version"), [("y\n", 0, "v2"), ("n\n", 1, "v1")])
def test_on_a_terminal_apply_asks(gateway: Gateway, typed: str, code: int, version: str) -> None:
    """The plan is shown first; no means that nothing changes."""
    gateway.config.traffic(production="v2")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*SLUICE, "apply", str(gateway.config.root)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    os.write(ours, typed.encode())
    shown, errors = process.communicate(timeout=90)
    os.close(ours)
    os.close(theirs)

    assert process.returncode == code, errors
    assert "~ demo.traffic.production: v1 -> v2" in shown
    assert "Apply this?" in errors
    asked = gateway.json("infer", "demo", "--data", str(gateway.data), "--input", "X=[[3]]")
    assert asked["model_version"] == version


def test_without_a_token_nothing_is_planned_or_applied(gateway: Gateway, tmp_path: Path) -> None:
    """A gateway named by address needs a credential, and the message says where from."""
    admin = f"http://{gateway.report.addresses.admin}"
    root = str(gateway.config.root)
    refused = gateway.run("plan", root, "--admin", admin, code=1)
    assert "--token-file" in refused.stderr
    wrong = tmp_path / "token"
    wrong.write_text("wrong\n")
    gateway.run("plan", root, "--admin", admin, "--token-file", str(wrong), code=1)

    token = gateway.data / "admin.token"
    gateway.run("plan", root, "--admin", admin, "--token-file", str(token))
    gateway.run("plan", root, "--admin", admin, SLUICE_TOKEN=token.read_text().strip())


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "DIR", "--admin", "http://127.0.0.1:9"),
        ("apply", "DIR", "--yes", "--admin", "http://127.0.0.1:9"),
        ("plan", "DIR", "--data", "."),
        ("infer", "demo", "--url", "127.0.0.1:9", "--entity", "person_id=1"),
        ("infer", "demo", "--url", "127.0.0.1:9", "--entity", "person_id=1", "--grpc"),
    ],
)
def test_nobody_there_exits_with_3(gateway: Gateway, arguments: tuple[str, ...]) -> None:
    """The message says who does not answer and what to do."""
    words = [str(gateway.config.root) if word == "DIR" else word for word in arguments]
    done = gateway.run(*words, code=3)

    assert "hint: `sluice up DIR` starts" in done.stderr


@pytest.mark.parametrize("transport", [[], ["--grpc"]])
def test_infer_answers_the_same_over_both_protocols(gateway: Gateway, transport: list[str]) -> None:
    """Values, shape, version and role; two rows by naming the input twice."""
    where = ["--data", str(gateway.data)]
    body = gateway.json("infer", "demo", *where, "--input", "X=[[3], [-1.5]]", *transport)
    [output] = body["outputs"]
    assert (output["name"], output["shape"], output["data"]) == ("Y", [2, 1], [6.0, -3.0])
    assert body["model_version"] == "v1"
    assert body["parameters"]["model_role"] == "production"

    rows = gateway.json(
        "infer", "demo", *where, "--feature", "X=3", "--feature", "X=-1.5", *transport
    )
    assert rows["outputs"] == body["outputs"]
    shown = gateway.run("infer", "demo", *where, "--feature", "X=3", *transport).stdout
    assert shown.startswith("demo · v1 · production · ")
    assert "6" in shown


@pytest.mark.parametrize("transport", [[], ["--grpc"]])
def test_infer_sends_a_whole_request_and_names_a_version(
    gateway: Gateway, transport: list[str]
) -> None:
    """A file or standard input; the version that was asked for answers."""
    request = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 1], "data": [2]}]}
    done = gateway.run(
        *("infer", "demo", "--data", str(gateway.data), "--version", "v1"),
        *("--request", "-", "--deadline", "5s", "--json", *transport),
        stdin=json.dumps(request),
    )
    body = json.loads(done.stdout)

    assert body["outputs"][0]["data"] == [4.0]
    assert body["parameters"]["model_role"] == "pinned"


@pytest.mark.parametrize("transport", [[], ["--grpc"]])
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nobody", "--entity", "a=1"], 1, "Request for unknown model"),
        (["demo", "--version", "v9", "--entity", "a=1"], 1, "v9"),
        (["demo", "--feature", "Z=1"], 1, "no input `Z`"),
        (["demo", "--input", "X=[[1, 2]]"], 1, "X"),
        (["demo", "--feature", "X=1", "--deadline", "soon"], 2, "50ms"),
        (["demo"], 1, "nothing to ask"),
    ],
)
def test_infer_says_what_is_wrong(
    gateway: Gateway, transport: list[str], arguments: list[str], code: int, says: str
) -> None:
    """The gateway's own words, or ours before it is asked."""
    done = gateway.run("infer", *arguments, "--data", str(gateway.data), *transport, code=code)

    assert says in done.stderr
