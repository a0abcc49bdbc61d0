"""The README's words hold: its request gets its answer, its files and commands exist."""

import json
import re
import shlex
import subprocess
import sys
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
    for part in ("models", "features", "artifacts"):
        (folder / part).mkdir(parents=True)
        for file in (ROOT / "configs" / "demo" / part).iterdir():
            (folder / part / file.name).write_bytes(file.read_bytes())
    (folder / "data").mkdir()
    seed = ROOT / "configs" / "demo" / "data" / "people.parquet"
    (folder / "data" / seed.name).write_bytes(seed.read_bytes())
    gateway_kit.write_gateway(folder)
    with gateway_kit.running(folder) as running:
        yield running


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


def test_a_canary_is_planned_and_applied_as_described(demo: gateway_kit.Running) -> None:
    """`plan` prints the README's lines; `apply` makes the change."""
    model = demo.folder / "demo" / "models" / "employment.yaml"
    document = yaml.safe_load(model.read_text())
    document["traffic"]["canary"] = {"version": "v2", "weight": 10}
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

    for line in ("+ employment.traffic.canary: version v2, weight 10", "moves 10 % of the keys"):
        assert line in README
        assert line in planned
    assert "published revision 2" in applied


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
