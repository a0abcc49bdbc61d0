"""The README's words hold: its request gets its answer, its files and commands exist."""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gateway_kit
import pytest
import store_kit
import yaml

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
REQUEST = re.search(r"^\$ (curl .*)\n(\{.*\})$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway_kit.Running]:
    """The demo on free ports."""
    folder = tmp_path_factory.mktemp("readme") / "demo"
    copy_demo(folder)
    with gateway_kit.running(folder) as running:
        yield running


def copy_demo(folder: Path) -> None:
    """What the demo is made of, with a gateway of its own."""
    for part in ("models", "features", "artifacts"):
        (folder / part).mkdir(parents=True)
        for file in (ROOT / "configs" / "demo" / part).iterdir():
            (folder / part / file.name).write_bytes(file.read_bytes())
    (folder / "data").mkdir()
    seed = ROOT / "configs" / "demo" / "data" / "people.parquet"
    (folder / "data" / seed.name).write_bytes(seed.read_bytes())
    gateway_kit.write_gateway(folder, log={})


def without_id(answer: str) -> dict[str, object]:
    """An answer without what is new in every one."""
    document = json.loads(answer)
    for name in ("prediction_id", "feature_age_ms"):
        document["parameters"].pop(name)
    return dict(document)


def test_the_request_as_printed_gets_the_answer_as_printed(demo: gateway_kit.Running) -> None:
    """Word for word but for the port, the prediction id and the features' age."""
    assert REQUEST is not None
    command = shlex.split(REQUEST[1].replace("localhost:8000", demo.http))

    answer = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    ).stdout

    assert without_id(answer) == without_id(REQUEST[2])


def test_a_change_is_planned_and_applied_as_described(demo: gateway_kit.Running) -> None:
    """`plan` prints the README's lines; `apply` makes the change."""
    model = demo.folder / "demo" / "models" / "employment.yaml"
    document = yaml.safe_load(model.read_text())
    document["serve"]["deadline"] = "80ms"
    model.write_text(yaml.safe_dump(document))
    where = [str(demo.folder / "demo"), "--data", str(demo.data)]

    planned = subprocess.run(
        [gateway_kit.SLUICE, "plan", *where],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    applied = subprocess.run(
        [gateway_kit.SLUICE, "apply", *where, "--yes"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    line = "~ employment.serve.deadline: 100ms -> 80ms"
    assert line in README
    assert line in planned
    assert "published revision " in applied


def test_what_was_answered_is_asked_as_printed(demo: gateway_kit.Running) -> None:
    """The section's commands run as printed, and their tables have the columns that it shows."""
    asked = {"name": "person_id", "datatype": "INT64", "shape": [3], "data": [42, 43, 44]}
    assert demo.infer("employment", [asked])[0] == 200
    shown = commands_of(README.partition("## What was answered")[2].partition("\n## ")[0])
    give_up = time.monotonic() + 30
    while "production" not in run(demo, shown[0][0]) and time.monotonic() < give_up:
        time.sleep(0.1)

    said = [run(demo, command) for command, _ in shown]

    assert [command.split()[1] for command, _ in shown] == ["log", "labels", "performance"]
    assert said[0].splitlines()[0].split() == shown[0][1].split()
    assert "3 joined" in said[1]
    assert said[2].splitlines()[0].split() == shown[2][1].split()
    assert "accuracy" in said[2]


def test_a_rollout_goes_from_apply_to_done_as_printed(tmp_path: Path) -> None:
    """Its plan is sound, and its commands run one after the other."""
    section = README.partition("## A new version, on evidence")[2].partition("\n## ")[0]
    plan = re.search(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert plan is not None
    folder = tmp_path / "demo"
    copy_demo(folder)
    shown = [command.partition("#")[0].strip() for command, _ in commands_of(section)]

    with gateway_kit.running(folder) as running:
        model = folder / "models" / "employment.yaml"
        model.write_text(model.read_text() + plan[1])
        said = {}
        for command in shown:
            words = command.replace("configs/demo", str(folder))
            asks = "apply" in words or "promote" in words
            said[" ".join(words.split()[1:3])] = run(running, words + " --yes" * asks)

    assert "step 1 of 4: shadow 25 %" in said["rollout status"]
    assert "done" in said["rollout watch"]
    assert "mends an outage" in said["rollout history"]


def commands_of(section: str) -> list[tuple[str, str]]:
    """Every command of a section, and the first line of what it prints; empty if nothing is."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", section, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            command = lines.pop(0)
            while command.endswith("\\") or command.count('"') % 2:
                command = command.removesuffix("\\") + "\n" + lines.pop(0)
            found.append((command, lines[0] if lines else ""))
    return found


def run(demo: gateway_kit.Running, command: str) -> str:
    """Run a command of the README against the test's gateway; what it printed."""
    words = shlex.split(command)
    if "--data" in words:
        words[words.index("--data") + 1] = str(demo.data)
    else:
        words += ["--data", str(demo.data)]
    done = subprocess.run(
        [gateway_kit.SLUICE, *words[1:]], capture_output=True, text=True, cwd=ROOT, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_links_and_commands_exist() -> None:
    """Every linked file is there, and every command of the table answers `--help`."""
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
    commands = set(re.findall(r"`sluice ([a-z]+)", README))
    assert {"up", "check", "plan", "apply", "status", "infer", "features", "tokens"} <= commands
    for command in commands:
        subprocess.run(
            [gateway_kit.SLUICE, command, "--help"], capture_output=True, timeout=60, check=True
        )


def test_the_feature_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    """Run as printed, but for where the store is."""
    match = re.search(
        r"^```python\n(.*?)^```\n\nIt prints `([^`]*)`", README, re.DOTALL | re.MULTILINE
    )
    assert match
    server = store_kit.ValkeyServer(tmp_path).start()
    try:
        script = match[1].replace("unix:///tmp/store.sock", server.url)
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            cwd=ROOT,
        )
    finally:
        server.kill()

    assert done.stdout.strip() == match[2]
