"""A plan with a rollout at a real gateway: what it forecasts, and what cannot change meanwhile."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_models
import pytest
from gateway_kit import SLUICE, Running, running, write_gateway, write_model

VERSIONS = {"v1": onnx_models.doubler(), "v2": onnx_models.linear(1, 1)}
PLAN: dict[str, Any] = {
    "canary": "v2",
    "steps": [
        {"weight": 1, "bake": {"min": "1h", "max": "2h"}},
        {"weight": 5, "bake": {"min": "1h"}},
        {"weight": 100},
    ],
    "guardrails": {
        "rules": [{"name": "errors", "metric": "error_rate", "tolerance": 1.0, "prove": 2.0}]
    },
}
PERSON = {"name": "person_id", "datatype": "INT64", "shape": [1], "data": [7]}


def write(directory: Path, *, versions: dict[str, bytes] = VERSIONS, **more: Any) -> None:
    """The whole configuration; `more` are sections of the model."""
    write_gateway(directory)
    traffic = {"assignment": {"key": "person_id"}, **more.pop("traffic", {})}
    write_model(directory, "demo", versions, traffic, entity={"person_id": "INT64"}, **more)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serves v1 of a model."""
    directory = tmp_path_factory.mktemp("configuration")
    write(directory)
    with running(directory) as made:
        yield made


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The same, where no rollout ever begins."""
    directory = tmp_path_factory.mktemp("idle")
    write(directory)
    with running(directory) as made:
        yield made


@pytest.fixture(scope="module")
def live(gateway: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose rollout is under way, in a git work tree."""
    directory = tmp_path_factory.mktemp("live")
    write(directory, rollout=PLAN)
    alone = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "Begin"]):
        subprocess.run(["git", *words], cwd=directory, check=True, env=alone)
    status, answer = gateway.apply(directory)
    assert status == 200, answer
    return directory


def sluice(gateway: Running, *words: object) -> "subprocess.CompletedProcess[str]":
    """Run a command against the gateway."""
    return subprocess.run(
        [SLUICE, *map(str, words), "--data", gateway.data],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_plan_says_what_each_step_sees(idle: Running, tmp_path: Path) -> None:
    """As JSON and as a table, at the traffic that is assumed."""
    write(tmp_path, rollout=PLAN)
    assumed = ("--rps", 100, "--error-rate", 0.005)
    machine = sluice(idle, "plan", tmp_path, *assumed, "--json")
    people = sluice(idle, "plan", tmp_path, *assumed)

    assert machine.returncode == people.returncode == 0, machine.stderr
    forecast = json.loads(machine.stdout)["forecasts"]["demo"]
    first, second, _ = forecast["steps"]
    assert (first["canary_rate"], second["canary_rate"]) == (1.0, 5.0)
    assert second["rules"][0]["doubled_seconds"] / 60 == pytest.approx(9.1, abs=0.05)
    assert "demo: rollout of v2 at 100 requests/s" in people.stdout
    assert "9.1 min" in people.stdout


def test_a_plan_says_what_a_step_cannot_see(idle: Running, tmp_path: Path) -> None:
    """In words, below the table."""
    write(tmp_path, rollout=PLAN)
    done = sluice(idle, "plan", tmp_path, "--rps", 4, "--error-rate", 0.005)

    assert "! step 1: weight 1 % for at most 2 h sees 1.4 errors of the canary" in done.stdout
    assert "give it more weight or time" in done.stdout


def test_samples_that_cannot_come_are_refused_once_traffic_was_seen(
    idle: Running, tmp_path: Path
) -> None:
    """`plan` warns of it, `apply` refuses it."""
    steps = [{"weight": 1, "bake": {"min_samples": 10**9, "max": "1m"}}, {"weight": 100}]
    write(tmp_path, rollout={**PLAN, "steps": steps})
    seen = False
    for _ in range(200):
        idle.infer("demo", [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}])
        status, answer = idle.ask(
            f"{idle.admin}/api/v1/config/plan",
            {"directory": str(tmp_path)},
            token=idle.token,
        )
        assert status == 200
        if seen := any("`min_samples`, at the" in one for one in answer["warnings"]):
            break
    status, answer = idle.apply(tmp_path)

    assert seen
    assert status == 400
    assert "rollout.steps[0].bake" in answer["problems"][0]


def test_other_files_than_were_looked_at_are_not_applied(idle: Running, tmp_path: Path) -> None:
    """Somebody has written in between."""
    write(tmp_path)
    status, answer = idle.apply(tmp_path, expected_digest="0" * 64)

    assert status == 409
    assert "the files have changed since they were looked at" in answer["error"]


def test_what_was_applied_says_where_it_comes_from(gateway: Running, live: Path) -> None:
    """Commit, author and digest, in the history and in the status."""
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=live, check=True, capture_output=True, text=True
    ).stdout.strip()
    entries = gateway.ask(f"{gateway.admin}/api/v1/history")[1]["entries"]
    commits = {one["origin"]["commit"]: one["origin"] for one in entries if one["origin"]}
    status = gateway.ask(f"{gateway.admin}/api/v1/status")[1]

    assert commits[head]["author"] == "Ada <ada@example.org>"
    assert not commits[head]["dirty"]
    assert status["origin"] == entries[0]["origin"]
    assert f"\nfrom {'commit' if status['origin']['commit'] else 'files'} " in (
        sluice(gateway, "status").stdout
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rollout": {**PLAN, "steps": [{"weight": 100}]}}, "its plan cannot change under it"),
        ({}, "its plan cannot change under it"),
        (
            {"versions": {**VERSIONS, "v2": onnx_models.linear(1, 2)}, "rollout": PLAN},
            "its evidence is about the file that `v2` was",
        ),
        (
            {
                "versions": {**VERSIONS, "v3": onnx_models.linear(1, 2)},
                "traffic": {"production": "v3"},
                "rollout": PLAN,
            },
            "production stays `v1` until it is over",
        ),
    ],
)
def test_what_a_live_rollout_is_about_cannot_change(
    gateway: Running, live: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    """With what to do instead; nothing is changed."""
    before = gateway.ask(f"{gateway.admin}/api/v1/config")[1]["models"]
    shutil.copytree(live, tmp_path / "changed", ignore=shutil.ignore_patterns(".git"))
    write(tmp_path / "changed", **change)
    done = sluice(gateway, "apply", tmp_path / "changed", "--yes")

    assert done.returncode == 1, done.stdout
    assert words in done.stderr
    assert "sluice rollout abort demo" in done.stderr
    assert gateway.ask(f"{gateway.admin}/api/v1/config")[1]["models"] == before


def test_the_rest_can_change_under_a_live_rollout(
    gateway: Running, live: Path, tmp_path: Path
) -> None:
    """And the rollout goes on."""
    write(tmp_path, rollout=PLAN, serve={"max_batch_size": 8})
    done = sluice(gateway, "apply", tmp_path, "--yes")
    standing = gateway.ask(f"{gateway.admin}/api/v1/rollouts/demo", token=gateway.token)[1]

    assert done.returncode == 0, done.stderr
    assert (standing["id"], standing["phase"]) == ("demo-r1", "progressing")
    del live
