"""What `--help` shows is run as it is printed, against a running demo."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import gateway_kit
import parquet_log
import pytest
import shipping_kit

from serving.cli.app import app
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect

DEMO = Path(__file__).parents[2] / "configs" / "demo"
USUAL_ADMIN = "127.0.0.1:8002"
ASKING = (
    *("sluice apply", "sluice roll", "sluice features erase", "sluice quarantine lift"),
    *("sluice log erase", "sluice retraining ask", "sluice retraining resume"),
)
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
    gateway = copy / "gateway.yaml"
    gateway.write_text(re.sub(r"127\.0\.0\.1:800\d", "127.0.0.1:0", gateway.read_text()))
    if "\nlog:" not in gateway.read_text():
        gateway.write_text(gateway.read_text() + "log: {}\n")
    model = copy / "models" / "employment.yaml"
    model.write_text(model.read_text() + "  retrain: {command: ['true']}\n")
    answered(folder, copy / ".sluice" / "predictions")
    # Stands for the usual ports, where `infer` and `plan` look if nothing is said.
    (folder / ".sluice").symlink_to(copy / ".sluice")
    with gateway_kit.running(copy, "--data", str(copy / ".sluice"), "--engine", "local") as running:
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


def test_every_kind_of_example_was_found() -> None:
    """The list is not empty by some mistake of this file."""
    words = {line.split()[1] for line in ALL if line.startswith("sluice")}

    assert words == {
        *("up", "check", "plan", "apply", "roll", "status", "infer", "quarantine", "features"),
        *("simulate", "tokens", "labels", "performance", "drift", "log", "retraining", "candidate"),
    }


# What watches never ends; tests/integration/test_watch.py runs it.
ENDING = [line for line in ALL if not line.startswith("sluice up") and "--watch" not in line]


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
    if line.startswith(ASKING) and "--yes" not in line:
        line += " --yes"  # a person would answer the question

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=here, capture_output=True, text=True, timeout=90, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr


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
