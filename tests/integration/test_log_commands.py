"""`sluice log` beside a gateway that answers, and one whose worker was killed."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import load_kit
import psutil
import pytest
from waiting_kit import until

from serving.control.audit import verify as verify_audit

DEMO = Path(__file__).parents[2] / "configs" / "demo"
PATH = "/v2/models/employment/infer"
SLOW = "SELECT sum(random()) FROM range(1000000000000)"
BOUND_SECONDS = 30.0


def body(person: int) -> dict[str, Any]:
    """A request about one person."""
    return {"inputs": [{"name": "person_id", "datatype": "INT64", "shape": [1], "data": [person]}]}


def sluice(*words: object) -> "subprocess.CompletedProcess[str]":
    """Run `sluice log …` to its end."""
    return subprocess.run(
        [str(gateway_kit.SLUICE), "log", *map(str, words)],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[gateway_kit.Running]:
    """The demo on two workers, with a log whose segments are sealed every two seconds."""
    folder = tmp_path / "demo"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns(".sluice", "*.py"))
    gateway = folder / "gateway.yaml"
    text = re.sub(r"127\.0\.0\.1:800\d", "127.0.0.1:0", gateway.read_text())
    text = re.sub(r"\n(log|engine):.*(\n +.*)*", "", text)
    gateway.write_text(
        f"{text}\nengine: {{kind: local, workers: 2}}\nlog: {{segment_age: 2s, min_free: 0B}}\n"
        # Nothing here is about being late.
        .replace("default_deadline: 1s", "default_deadline: 30s")
    )
    with gateway_kit.running(folder) as running:
        yield running


def ask(demo: gateway_kit.Running, person: int) -> str:
    """Ask about a person; the answer's prediction_id."""
    status, answer = demo.ask(f"{demo.http}{PATH}", body(person))
    assert status == 200, answer
    return str(answer["parameters"]["prediction_id"])


def rows(demo: gateway_kit.Running, sql: str) -> list[dict[str, Any]]:
    """What a query answers."""
    done = sluice("query", sql, "--data", demo.data, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    return found


def test_an_answer_can_be_asked_for_at_once(demo: gateway_kit.Running) -> None:
    """By its prediction_id, with the features that the model got."""
    asked = ask(demo, 7)
    sql = f"FROM employment WHERE prediction_id = '{asked}' AND role = 'production'"
    [row] = until(lambda: rows(demo, sql))

    assert row["person_id"] == 7
    assert isinstance(row["AGEP"], float)
    assert len(row["probabilities"]) == 2
    assert row["status_person_profile"]


def test_who_follows_sees_what_is_answered_meanwhile(demo: gateway_kit.Running) -> None:
    """Rows from before, then every later one, once, while files are sealed and converted."""
    before = ask(demo, 1)
    until(lambda: sluice("tail", "--data", demo.data).stdout)
    with subprocess.Popen(
        [str(gateway_kit.SLUICE), "log", "tail", "employment", "-f", "--json", "--role",
         "production", "--data", str(demo.data)],
        stdout=subprocess.PIPE, text=True,
    ) as follower, contextlib.ExitStack() as stack:  # fmt: skip
        stack.callback(follower.kill)  # or it would be waited for, whatever goes wrong here
        assert follower.stdout is not None
        seen = [json.loads(follower.stdout.readline())["prediction_id"]]
        asked = []
        for person in range(30):
            asked.append(ask(demo, person))
            time.sleep(0.2)  # over several turns of the keeper: the load's rate, not a wait
        seen += [json.loads(follower.stdout.readline())["prediction_id"] for _ in asked]
        follower.send_signal(signal.SIGINT)
        rest = follower.stdout.read()

    assert seen[0] == before
    assert sorted(seen[1:]) == sorted(asked)
    assert rest == ""
    assert follower.returncode == 130


def test_the_books_are_right_after_kill_9(demo: gateway_kit.Running, record_property: Any) -> None:
    """While a worker is new and its predecessor's account is drawn up, and when all is over."""
    with load_kit.load(demo.http, PATH, body(5), rate=150) as load:
        time.sleep(1.5)
        os.kill(demo.pids("worker-0")[0], signal.SIGKILL)
        verdicts = [sluice("verify", "--data", demo.data, "--json") for _ in range(3)]
        time.sleep(1.5)
    answered = len(load.outcomes) - len(load.failures)

    def complete() -> dict[str, Any] | None:
        verdict = json.loads(sluice("verify", "--data", demo.data, "--json").stdout)
        held = sum(writer["held"] for writer in verdict["writers"])
        return verdict if held == 0 else None

    verdict = until(complete)
    verdicts.append(sluice("verify", "--data", demo.data))
    crash = sum(writer["crash"] for writer in verdict["writers"])
    record_property("seen", f"{answered} answered, {verdict['rows']} rows, {crash} crash")

    assert [done.returncode for done in verdicts] == [0, 0, 0, 0], verdicts[-1].stdout
    assert verdict["sound"]
    assert len(verdict["writers"]) == 3
    [count] = rows(demo, "SELECT count(*) AS n FROM employment WHERE role = 'production'")
    assert answered - crash <= count["n"] <= len(load.outcomes)


def test_a_subject_is_gone_while_the_gateway_goes_on(
    demo: gateway_kit.Running, record_property: Any
) -> None:
    """Somebody else's rows are all there, the books are right, and the audit says who asked."""
    with load_kit.load(demo.http, PATH, body(8), rate=100) as others:
        with load_kit.load(demo.http, PATH, body(42), rate=50) as subject:
            label = {"prediction_id": ask(demo, 42), "label": 1}
            told = demo.ask(f"{demo.admin}/api/v1/labels", {"labels": [label]}, token=demo.token)
            time.sleep(4)  # the load's duration: some rows are Parquet then, some are not
        erased = sluice(
            "erase", "--subject", "person_id=42", "--data", demo.data, "--yes", "--json"
        )
        time.sleep(1)
    assert erased.returncode == 0, erased.stderr
    receipt = json.loads(erased.stdout)
    record_property("seen", f"{receipt['rows']} rows in {len(receipt['files'])} files")
    assert told[0] == 200, told
    assert (receipt["labels"], receipt["labels_held"]) == (1, False)

    def settled() -> bool:
        count = "SELECT count(*) AS n FROM employment WHERE person_id = 8 AND role = 'production'"
        return rows(demo, count)[0]["n"] >= len(others.outcomes) - len(others.failures)

    until(settled)
    assert receipt["rows"] >= len(subject.outcomes) - len(subject.failures)
    assert rows(demo, "FROM employment WHERE person_id = 42") == []
    assert others.failures == []
    verified = sluice("verify", "--data", demo.data)
    assert verified.returncode == 0, verified.stdout
    audit = demo.data / "journal" / "audit.jsonl"
    [noted] = [line for line in audit.read_text().splitlines() if '"log.erase"' in line]
    assert receipt["receipt"] in noted
    assert '"labels.erase"' in audit.read_text()
    assert verify_audit(audit) == []


def test_ctrl_c_ends_the_query_s_process(tmp_path: Path) -> None:
    """And a command that is killed takes it along, too."""
    for number in (signal.SIGINT, signal.SIGKILL):
        with subprocess.Popen(
            [sys.executable, "-c", "from serving.cli import main; main()",
             "log", "query", SLOW, "--log", str(tmp_path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as command:  # fmt: skip
            process = psutil.Process(command.pid)
            [child] = until(
                lambda process=process: [
                    one for one in process.children() if one.cpu_times().user > 1.0
                ]
            )
            command.send_signal(number)
            command.wait(BOUND_SECONDS)
        until(lambda child=child: not child.is_running() or child.status() == "zombie")
        assert command.returncode == (130 if number == signal.SIGINT else -number)
