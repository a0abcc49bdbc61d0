"""What `--help` shows is run as it is printed, against a running demo."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import gateway_kit
import loadtest_kit
import loadtest_target_kit
import parquet_log
import pytest
import shipping_kit
import yaml

from serving.cli.app import app
from serving.drift.verdict import LEVELS
from serving.loadtest.report.document import to_json
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect

DEMO = Path(__file__).parents[2] / "configs" / "demo"
SCENARIOS = Path(__file__).parents[2] / "loadtests" / "scenarios"
USUAL_ADMIN = "127.0.0.1:8002"
VERBS = ("promote", "pause", "resume", "approve", "abort", "retry")
MOVING = tuple(f"sluice rollout {verb}" for verb in (*VERBS, "status", "watch", "history"))
ASKING = (
    *("sluice apply", "sluice roll ", "sluice features erase", "sluice quarantine lift"),
    *("sluice log erase", "sluice retraining ask", "sluice retraining resume"),
    *(f"sluice rollout {verb}" for verb in VERBS),
)
ROLLOUT = {
    "canary": "v2",
    "steps": [
        {"shadow": 25, "bake": {"min": "1h"}},
        {"weight": 5, "bake": {"min": "1h"}},
        {"approve": {"group": "labour-desk"}},
        {"weight": 100},
    ],
    "guardrails": {
        "rules": [{"name": "failures", "metric": "error_rate", "tolerance": 1.5, "prove": 2.0}]
    },
}
FOLLOWED_BY_WORDS = re.compile(r" {3,}[a-z].*")


def examples(command: click.Command, path: str = "sluice") -> Iterator[str]:
    """Every example in the help of a command and those below it, as one line each."""
    _, _, shown = (command.help or "").partition("Example")
    lines = [line.strip() for line in shown.replace("\\\n", " ").splitlines()]
    found = [FOLLOWED_BY_WORDS.sub("", line) for line in lines if line.startswith(("sluice", "T"))]
    if not isinstance(command, click.Group):
        assert found, f"{path} --help shows no example"
    yield from found
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from examples(below, f"{path} {name}")


ALL = sorted(set(examples(app)))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway_kit.Running]:
    """The demo where the examples expect it, on free ports."""
    folder = tmp_path_factory.mktemp("here")
    copy = folder / "configs" / "demo"
    shutil.copytree(DEMO, copy, ignore=shutil.ignore_patterns(".sluice", "*.py"))
    # What the examples of `features load` load: the people, and one of them as an export.
    shutil.copy(copy / "data" / "people.parquet", folder)
    with gzip.open(folder / "export.csv.gz", "wt") as export:
        export.write("id,MAR,RELP,ESP,MIG\n9,1,0,,3\n")
    (folder / "load.csv").write_text("seconds,rps\n0,100\n15,4000\n30,200\n")
    (folder / "before.json").write_bytes(to_json(loadtest_kit.report()))
    gateway = copy / "gateway.yaml"
    gateway.write_text(re.sub(r"127\.0\.0\.1:800\d", "127.0.0.1:0", gateway.read_text()))
    if "\nlog:" not in gateway.read_text():
        gateway.write_text(gateway.read_text() + "log: {}\n")
    model = copy / "models" / "employment.yaml"
    document = yaml.safe_load(model.read_text())
    document["monitoring"]["retrain"] = {"command": ["true"]}
    document["rollout"] = ROLLOUT
    model.write_text(yaml.safe_dump(document))
    answered(folder, copy / ".sluice" / "predictions")
    # Stands for the usual ports, where `infer` and `plan` look if nothing is said.
    (folder / ".sluice").symlink_to(copy / ".sluice")
    with gateway_kit.running(copy, "--data", str(copy / ".sluice"), "--engine", "local") as running:
        for scenario in SCENARIOS.glob("*.yaml"):
            (folder / "loadtests" / "scenarios").mkdir(parents=True, exist_ok=True)
            loadtest_target_kit.untimed(
                scenario,
                folder / "loadtests" / "scenarios" / scenario.name,
                http=running.http,
                grpc=running.grpc,
            )
        yield running


def answered(folder: Path, log: Path) -> None:
    """Predictions of an hour ago, and a file that says what came true of one.

    As many as a reference can be frozen from, of persons 1 to 120.
    """
    made = time.time() - 3600
    rows = [parquet_log.row(made, number, model="employment") for number in range(1, 121)]
    parquet_log.write_log(log, rows)
    account = {"node": "n", "writer": "w", "offered": len(rows), "logged": len(rows)}
    (log / "writers.jsonl").write_text(
        json.dumps(account | {"sampled_out": 0, "dropped": {}}) + "\n"
    )
    told = rows[41]["prediction_id"]
    (folder / "outcomes.csv").write_text(f"prediction_id,label\n{told},employed\n")


def quarantine(demo: gateway_kit.Running, model: str, version: str) -> None:
    """Put a version where `lift` finds it, as two crashes would."""
    _, status = demo.ask(f"{demo.admin}/api/v1/status", token=demo.token)
    [its] = [one for one in status["models"] if one["model"] == model]
    [sha256] = [one["sha256"] for one in its["versions"] if one["version"] == version]
    crash = Crash(
        at=1.0, worker="worker-0", signal="SIGSEGV", suspects=(Suspect(model, version, sha256),)
    )
    register.record(demo.data, crash)
    register.record(demo.data, crash)


def training(demo: gateway_kit.Running, *, runs: bool) -> None:
    """Have a training of the demo's model run, or none."""
    url = f"{demo.admin}/api/v1/retraining/employment"
    if demo.ask(url, token=demo.token)[1]["in_flight"] != runs:
        verb, body = ("ask", {}) if runs else ("ended", {"improved": True})
        assert demo.ask(f"{url}/{verb}", body, token=demo.token)[0] == 200


class Rollout:
    """The demo's rollout, begun anew and brought to where an example expects it."""

    def __init__(self, demo: gateway_kit.Running) -> None:
        self._demo = demo
        self._url = f"{demo.admin}/api/v1/rollouts/employment"
        before = self._now()
        deadline = time.monotonic() + 60
        while True:
            now = self._now()
            assert time.monotonic() < deadline, now
            phase, another = now.get("phase", ""), now.get("id") != before.get("id")
            if phase == "progressing" and (another or before.get("phase") in (None, "pending")):
                return
            if phase == "done":  # what it wanted is production; the file has to want it again
                self._apply(None)
                self._wait(
                    "/history",
                    lambda told: told["rollouts"][0]["events"][-1]["kind"] == "superseded",
                )
                self._apply(ROLLOUT)
                self._wait("", lambda told, over=now["id"]: told["id"] != over)
            elif phase == "aborted":  # as an example wanted, or because of one about quarantine
                self._say("retry")
            elif phase in ("progressing", "paused", "awaiting_approval"):
                self._say("abort")
            time.sleep(0.05)

    def _now(self) -> dict[str, Any]:
        status, standing = self._demo.ask(self._url, token=self._demo.token)
        return dict(standing) if status == 200 else {}

    def until(self, phase: str) -> None:
        """Wait until it is there."""
        self._wait("", lambda standing: standing["phase"] == phase)

    def _wait(self, what: str, holds: Callable[[Any], bool]) -> None:
        deadline = time.monotonic() + 30
        while True:
            status, answer = self._demo.ask(f"{self._url}{what}", token=self._demo.token)
            if status == 200 and holds(answer):
                return
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)

    def do(self, verb: str, **body: object) -> None:
        """As a person would."""
        status, answer = self._say(verb, **body)
        assert status == 200, answer

    def _say(self, verb: str, **body: object) -> tuple[int, Any]:
        return self._demo.ask(
            f"{self._url}/{verb}", {"reason": "an example", **body}, token=self._demo.token
        )

    def bring(self, verb: str) -> None:
        """To where a verb means something."""
        if verb == "resume":
            self.do("pause")
        elif verb == "approve":
            self.do("promote")
            self.do("promote")
        elif verb == "retry":
            self.do("abort")
            self.until("aborted")

    def _apply(self, rollout: object) -> None:
        folder = self._demo.data.parent
        model = folder / "models" / "employment.yaml"
        document = yaml.safe_load(model.read_text())
        document.pop("rollout", None)
        if rollout is not None:
            document["rollout"] = rollout
        model.write_text(yaml.safe_dump(document))
        status, answer = self._demo.ask(
            f"{self._demo.admin}/api/v1/config/apply",
            {"directory": str(folder.resolve())}, token=self._demo.token,
        )  # fmt: skip
        assert status == 200, answer


def test_every_kind_of_example_was_found() -> None:
    """The list is not empty by some mistake of this file."""
    words = {line.split()[1] for line in ALL if line.startswith("sluice")}

    assert words == {
        *("up", "check", "plan", "apply", "roll", "status", "infer", "quarantine", "features"),
        *("simulate", "tokens", "labels", "performance", "drift", "log", "retraining", "candidate"),
        *("rollout", "loadtest"),
    }


# What watches never ends; tests/integration/test_watch.py runs it.
ENDING = [line for line in ALL if not line.startswith("sluice up") and "--watch" not in line]


def expected(line: str, here: Path) -> int:
    """What the command's answer makes of its exit code: 1 if it found what `--fail-on` names.

    What other examples have asked the demo may well be drift.
    """
    named = re.search(r" --fail-on (\w+)", line)
    if named is None:
        return 0
    done = run(f"{line.replace(named[0], '')} --json", here)
    levels = [one["verdict"]["level"] for one in json.loads(done.stdout)["drift"]["watched"]]
    return int(max(map(LEVELS.index, levels), default=0) >= LEVELS.index(named[1]))


def run(line: str, here: Path) -> "subprocess.CompletedProcess[str]":
    """A command to its end, which is to be a good one."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=here, capture_output=True, text=True, timeout=90, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def environment() -> dict[str, str]:
    """Where `sluice` is ours."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("line", ENDING)
def test_an_example_works_as_it_is_printed(demo: gateway_kit.Running, line: str) -> None:
    """Exit code 0, and no complaint."""
    here = demo.data.parents[2]
    (here / "tokens.yaml").unlink(missing_ok=True)
    line = line.replace(USUAL_ADMIN, demo.admin)
    if shutil.which("jq") is None:
        line = re.sub(r" \| jq [^)]*", "", line)
    if line.startswith("sluice log ship"):
        shipping_kit.needed("deltalake")
    if line.startswith("sluice quarantine lift"):
        quarantine(demo, "employment", "v2")
    if line.startswith(("sluice retraining ask", "sluice retraining ended")):
        training(demo, runs="ended" in line)
    rollout = Rollout(demo) if line.startswith(MOVING) else None
    if rollout is not None:
        rollout.bring(line.split()[2])
    if line.startswith(ASKING) and "--yes" not in line:
        line += " --yes"  # a person would answer the question

    with subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    ) as child:  # fmt: skip
        if rollout is not None and line.startswith("sluice rollout watch"):
            assert child.stdout is not None
            if "--until step" in line:
                child.stdout.readline()  # it has seen where it is; now another step begins
            rollout.do("promote", full="--until step" not in line)
        _, complaints = child.communicate(timeout=90)

    assert child.returncode == expected(line, here), complaints
    assert "error" not in complaints


@pytest.mark.parametrize("line", [line for line in ALL if line.startswith("sluice up")])
def test_the_options_of_an_example_that_starts_a_gateway_exist(line: str, tmp_path: Path) -> None:
    """They are taken, and then there is no configuration to start."""
    words = line.partition(">")[0].replace("configs/demo", str(tmp_path)).split()[1:]
    done = subprocess.run(
        [sys.executable, "-c", "from serving.cli import main; main()", *words],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert "gateway.yaml: error: no such file" in done.stderr
