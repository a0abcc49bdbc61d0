"""`sluice drift MODEL` on a gateway with real traffic: what it says, and what it exits with."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import msgspec
import numpy as np
import onnx_models
import pytest
import yaml
from click.testing import CliRunner, Result

from serving.cli.app import app
from serving.cli.drift.show import LEVELS as OFFERED
from serving.config.frozen_bins import Reference, encode_reference
from serving.drift.freezing import freeze
from serving.drift.sources import log_tables
from serving.drift.verdict import LEVELS
from serving.recording.layout import LogFolder

PATIENCE_SECONDS = 90.0
FIELDS = ("age", "income", "town")
WATCHED = ("quiet", "older", "killed", "idle", "again")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway_kit.Running]:
    """One classifier under six names; five have a reference, `bare` has none."""
    folder = tmp_path_factory.mktemp("drift") / "gateway"
    gateway_kit.write_gateway(folder, log={})
    view = {
        "schema_version": 1,
        "view": "person",
        "entity": {"person_id": "int64"},
        "fields": {name: {"type": "float32", "default": 0} for name in FIELDS},
    }
    (folder / "features").mkdir()
    (folder / "features" / "person.yaml").write_text(yaml.safe_dump(view))
    watched = {"window": "4s", "min_rows": 100, "important": ["age"]}
    for name in (*WATCHED, "bare"):
        monitoring = watched | {"reference": f"../artifacts/{name}.json"} if name != "bare" else {}
        gateway_kit.write_model(
            folder, name, {"v1": onnx_models.mlp(3)}, {},
            entity={"person_id": "INT64"},
            inputs={"X": {"features": ["person.*"]}},
            monitoring=monitoring,
        )  # fmt: skip
        (folder / "artifacts" / f"{name}.json").write_bytes(encode_reference(reference(name)))
    with gateway_kit.running(folder) as running:
        yield running


def people(rows: int, seed: int, *, older: float = 0.0) -> np.ndarray:
    """Rows of age, income and town."""
    chance = np.random.default_rng(seed)
    return np.stack(
        [
            chance.normal(40 + older, 10, rows),
            chance.lognormal(10, 0.5, rows),
            chance.integers(1, 5, rows),
        ],
        axis=1,
    ).astype(np.float32)


def reference(model: str) -> Reference:
    """Frozen from twenty thousand people."""
    seen = people(20_000, seed=0)
    return Reference(
        model=model,
        rows=len(seen),
        created="2026-01-01T00:00:00Z",
        source="twenty thousand people",
        columns=freeze({name: seen[:, at] for at, name in enumerate(FIELDS)}),
    )


def send(gateway: gateway_kit.Running, model: str, rows: np.ndarray) -> int:
    """Have rows answered, fifty a request; how many were."""
    for batch in np.array_split(rows, max(1, len(rows) // 50)):
        tensor = {
            "name": "X", "datatype": "FP32", "shape": list(batch.shape),
            "data": batch.ravel().tolist(),
        }  # fmt: skip
        status, answer = gateway.infer(model, [tensor])
        assert status == 200, answer
    return len(rows)


def sluice(gateway: gateway_kit.Running, *words: object) -> Result:
    """Run `sluice drift …` in this process."""
    return CliRunner().invoke(
        app,
        ["drift", *map(str, words), "--data", str(gateway.data)],
        env={"COLUMNS": "250"},
    )


def document(gateway: gateway_kit.Running, model: str) -> Any:
    """What `--json` prints; None while control does not answer."""
    done = sluice(gateway, model, "--json")
    return json.loads(done.stdout) if done.exit_code == 0 else None


def until_counted(gateway: gateway_kit.Running, model: str, rows: int) -> Any:
    """Ask until so many rows are in the windows at least; what was said then."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        said = document(gateway, model)
        counted = 0
        if said is not None:
            counted = sum(
                number
                for watched in said["drift"]["watched"]
                for _, number in watched["standing"]["rows_by_window"]
            )
        if counted >= rows:
            return said | {"counted": counted}
        assert time.monotonic() < end, f"{counted} of {rows} rows of {model} were counted"


def test_traffic_like_the_reference_is_no_alert(gateway: gateway_kit.Running) -> None:
    """Every row is counted, no column drifts, and `--fail-on alert` passes."""
    sent = send(gateway, "quiet", people(2_000, seed=1))

    said = until_counted(gateway, "quiet", sent)
    [watched] = said["drift"]["watched"]
    done = sluice(gateway, "quiet", "--fail-on", "alert")

    assert said["counted"] == sent
    assert {one["name"] for one in watched["standing"]["drift"]["columns"]} == set(FIELDS)
    assert done.exit_code == 0, done.output
    assert "quiet v1 (production): none" in done.stdout
    assert "against 20,000 of twenty thousand people" in done.stdout


def test_a_column_that_keeps_drifting_is_named_and_fails(
    gateway: gateway_kit.Running, tmp_path: Path
) -> None:
    """In words, by exit code, in the metrics, and on a page that loads nothing."""
    page = tmp_path / "drift.html"
    end = time.monotonic() + PATIENCE_SECONDS
    seed = 100
    while True:
        seed += 1
        send(gateway, "older", people(200, seed, older=15))
        done = sluice(gateway, "older", "--fail-on", "alert", "--html", page)
        if done.exit_code == 1 or time.monotonic() > end:
            break

    assert done.exit_code == 1, done.output
    assert "older v1 (production): alert" in done.stdout
    assert "`age` keeps drifting: share of" in done.stdout
    assert not any(word in page.read_text() for word in ("<script", "src=", "href=", "url("))
    assert "<code>age</code> keeps drifting" in page.read_text()
    _, metrics = gateway.ask(f"{gateway.admin}/metrics", token=gateway.token)
    assert 'sluice_drift_level{model="older",role="production",version="v1"} 2.0' in metrics
    _, status = gateway.ask(f"{gateway.admin}/", token=gateway.token)
    assert 'href="/drift/older">alert</a>' in status
    _, shown = gateway.ask(f"{gateway.admin}/drift/older", token=gateway.token)
    assert "<code>age</code> keeps drifting" in shown


def test_a_killed_control_process_loses_and_doubles_no_row(gateway: gateway_kit.Running) -> None:
    """Rows before, during and after are in the windows once each."""
    sent = send(gateway, "killed", people(600, seed=2))
    until_counted(gateway, "killed", sent)
    [victim] = gateway.pids("control")
    os.kill(victim, signal.SIGKILL)
    sent += send(gateway, "killed", people(500, seed=3))

    until_counted(gateway, "killed", sent)
    sent += send(gateway, "killed", people(400, seed=4))
    said = until_counted(gateway, "killed", sent)

    assert gateway.pids("control") != [victim]
    assert said["counted"] == sent


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["idle"], 0, "idle: no request was counted yet"),
        (["idle", "--fail-on", "inform"], 0, "no request was counted yet"),
        (["iddle"], 1, "no model `iddle`\nhint: did you mean `idle`?"),
        (["idle", "--version", "v2"], 1, "`idle` has no version `v2`\nhint: known here: `v1`"),
        (["bare"], 1, "`bare` has no reference that its traffic could be compared with"),
        (["bare"], 1, "hint: `sluice drift freeze bare --table FILE --out FILE` makes one"),
        (["idle", "--role", "judge"], 2, "'judge' is not one of"),
        (["idle", "more"], 2, "unexpected extra argument"),
        (["show", "idle"], 0, "no request was counted yet"),
        (["--role", "canary", "idle"], 0, "no request was counted yet"),
    ],
)
def test_why_there_is_nothing_is_said_in_one_message(
    gateway: gateway_kit.Running, words: list[str], code: int, says: str
) -> None:
    """What is wrong, and what to do about it."""
    done = sluice(gateway, *words)

    assert done.exit_code == code, done.output
    assert says in done.output


def test_without_a_gateway_it_exits_with_3(tmp_path: Path) -> None:
    """As every command that asks one."""
    done = CliRunner().invoke(app, ["drift", "demo", "--data", str(tmp_path)])

    assert done.exit_code == 3
    assert "no gateway runs on" in done.output


def test_a_page_that_cannot_be_written_is_said(gateway: gateway_kit.Running) -> None:
    """With the file's name and the reason."""
    done = sluice(gateway, "idle", "--html", "/nowhere/drift.html")

    assert done.exit_code == 1
    assert "/nowhere/drift.html cannot be written: no such file or directory" in done.output


def test_help_teaches_both_ways(gateway: gateway_kit.Running) -> None:
    """How to compare and how to freeze; every level is offered."""
    del gateway
    whole = CliRunner().invoke(app, ["drift", "--help"]).output
    one = CliRunner().invoke(app, ["drift", "employment", "--help"]).output

    assert "sluice drift employment --data" in whole
    assert "sluice drift freeze employment" in whole
    assert "--fail-on [inform|alert|trigger]" in one
    assert OFFERED == LEVELS


def test_the_log_counted_again_says_what_was_counted(gateway: gateway_kit.Running) -> None:
    """Row for row; with another reference it judges by that one, and a wrong name is helped."""
    sent = send(gateway, "again", people(1_500, seed=9, older=15.0))
    counted = until_counted(gateway, "again", sent)
    until_logged(gateway, "again", sent)
    root = gateway.folder / "gateway"
    like = root / "artifacts" / "like.json"
    seen = people(20_000, seed=0, older=15.0)
    columns = freeze({name: seen[:, at] for at, name in enumerate(FIELDS)})
    like.write_bytes(encode_reference(msgspec.structs.replace(reference("again"), columns=columns)))
    config = ("--config", root, "--last", "1h")
    same = json.loads(sluice(gateway, "recount", "again", *config, "--json").stdout)
    other = sluice(gateway, "recount", "again", *config, "--reference", like)
    wrong = sluice(gateway, "recount", "agian", *config)

    assert same["rows"] == counted["counted"] == sent
    [ours], [theirs] = same["watched"], counted["drift"]["watched"]
    assert {one["name"] for one in ours["standing"]["drift"]["columns"] if one["since"]} == {"age"}
    assert ours["verdict"]["level"] == theirs["verdict"]["level"]
    assert "again v1 (production): none" in other.stdout, other.output
    assert wrong.exit_code == 1
    assert "did you mean `again`?" in wrong.output


def until_logged(gateway: gateway_kit.Running, model: str, rows: int) -> None:
    """Wait until the log can be read that far."""
    end = time.monotonic() + PATIENCE_SECONDS
    log = LogFolder(gateway.data / "predictions")
    while sum(one.num_rows for one in log_tables(log, model, ["event_time"], 0.0, [])) < rows:
        assert time.monotonic() < end, f"{model} has fewer than {rows} rows in the log"
        time.sleep(0.1)
