"""`sluice loadtest` as a person runs it: exit codes, words, and the files it writes."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import gateway_kit
import loadtest_target_kit as kit
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo"
SLUICE = [sys.executable, "-c", "from serving.cli import main; main()", "loadtest"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateway_kit.Running]:
    """The demo on free ports, with its people's features."""
    copy = tmp_path_factory.mktemp("loadtest") / "demo"
    shutil.copytree(DEMO, copy, ignore=shutil.ignore_patterns(".sluice", "*.py"))
    gateway = copy / "gateway.yaml"
    gateway.write_text(re.sub(r"127\.0\.0\.1:800\d", "127.0.0.1:0", gateway.read_text()))
    with gateway_kit.running(copy, "--engine", "local") as running:
        yield running


def sluice(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    return subprocess.run(
        [*SLUICE, *map(str, arguments)], capture_output=True, text=True, timeout=90, check=False
    )


def write(folder: Path, target: str, **more: object) -> Path:
    """A scenario of 30 requests that no busy machine fails."""
    document = {
        "schema_version": 1,
        "name": "short",
        "target": target,
        "timeout": "20s",
        "max_lag": "60s",
        "connections": 32,
        "requests": [{"model": "employment", "entity": {"person_id": {"keys": 50}}}],
        "phases": [{"name": "a", "for": "300ms", "rate": 100, "arrivals": "constant"}],
        "slos": [{"error_rate": 0}],
        **more,
    }
    path = folder / "short.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("how", ["json", "binary", "grpc"])
def test_the_demo_meets_its_slos_over_every_protocol(
    demo: gateway_kit.Running, tmp_path: Path, how: str
) -> None:
    """Exit 0; the answers' own words are counted: version, role, feature status."""
    target = f"grpc://{demo.grpc}" if how == "grpc" else f"http://{demo.http}"
    body = str(DEMO / "example-request-x.json")
    scenario = write(
        tmp_path,
        target,
        encoding="json" if how == "grpc" else how,
        deadline="20s",
        requests=[
            {"model": "employment", "rows": [1, 3], "entity": {"person_id": {"keys": 50}}},
            {"name": "whole", "model": "employment", "version": "v2", "body": body},
        ],
        slos=[
            {"phase": "a", "error_rate": 0, "goodput": 1},
            {"versions": {"v1": {"at_least": 0.2}, "v2": {"at_least": 0.2}}},
            {"feature_status": {"OK": {"at_least": 0.99}}},
        ],
    )
    done = sluice(scenario, "--json", "-")

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["outcome"] == "met"
    whole = report["whole"]["figures"]
    assert (whole["scheduled"], whole["ok"]) == (30, 30)
    assert set(whole["versions"]) == {"employment:v1", "employment:v2"}


def test_a_missed_slo_is_exit_1_in_words_and_in_every_file(
    demo: gateway_kit.Running, tmp_path: Path
) -> None:
    """Who reads only the exit code, only the JUnit file or only the page hears the same."""
    slos = [{"error_rate": 0}, {"roles": {"canary": {"at_least": 0.5}}}]
    scenario = write(tmp_path, f"http://{demo.http}", slos=slos)
    files = [tmp_path / name for name in ("out.json", "out.xml", "out.html")]
    done = sluice(scenario, "--json", files[0], "--junit", files[1], "--html", files[2])

    assert done.returncode == 1
    assert "role canary is 0 %, not ≥ 50 %" in done.stdout
    assert "missed: 1 of 3 checks" in done.stdout
    assert json.loads(files[0].read_text())["outcome"] == "missed"
    assert len(list(ET.parse(files[1]).iter("failure"))) == 1  # noqa: S314 - our own file
    assert "canary" in files[2].read_text()


def test_the_log_of_predictions_can_be_replayed(demo: gateway_kit.Running, tmp_path: Path) -> None:
    """Who was asked for is asked for again, in the same order."""
    log = str(demo.data / "predictions")
    first = sluice(write(tmp_path, f"http://{demo.http}"))
    assert first.returncode == 0, first.stdout + first.stderr
    phases = [{"name": "again", "log": {"folder": log, "model": "employment", "at_most": 20}}]
    done = sluice(write(tmp_path, f"http://{demo.http}", phases=phases), "--json", "-")

    assert done.returncode == 0, done.stdout + done.stderr
    assert 1 <= json.loads(done.stdout)["whole"]["figures"]["ok"] <= 20


def test_a_trace_can_be_replayed(demo: gateway_kit.Running, tmp_path: Path) -> None:
    """At the rates of its columns, over several processes."""
    (tmp_path / "load.csv").write_text("seconds,rps\n0,20\n0.5,60\n1,0\n")
    phases = [{"name": "t", "arrivals": "constant", "trace": {"file": "load.csv", "speed": 2}}]
    scenario = write(tmp_path, f"http://{demo.http}", phases=phases, processes=2)
    done = sluice(scenario, "--json", "-")

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["whole"]["figures"]["ok"] == 20


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_model_and_a_rate_are_a_load_test(
    demo: gateway_kit.Running, tmp_path: Path, protocol: str
) -> None:
    """The target says what the model takes; what is printed is the scenario, and can be run."""
    target = f"{protocol}://{demo.http if protocol == 'http' else demo.grpc}"
    options = ("--target", target, "--model", "employment", "--rate", "40", "--slo", "error_rate=0")
    printed = sluice(*options, "--seconds", "0.5", "--deadline", "20s", "--print")

    assert printed.returncode == 0, printed.stderr
    document = yaml.safe_load(printed.stdout)
    assert list(document["requests"][0]["entity"]) == ["person_id"]
    file = tmp_path / "kept.yaml"
    file.write_text(yaml.safe_dump(document | {"max_lag": "60s", "timeout": "30s"}))
    done = sluice(file, "--json", "-")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["phases"][0]["name"] == "steady"


def test_without_a_print_the_options_are_run(demo: gateway_kit.Running) -> None:
    """From the gateway on this machine, found by its data directory."""
    done = sluice(
        *("--data", demo.data, "--model", "employment", "--entity", "person_id=1..5"),
        *("--seconds", "0.5", "--slo", "throughput=1000000", "--json", "-"),
    )

    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["target"] == f"http://{demo.http}"
    assert [check["ok"] for check in report["slos"] if "throughput" in check["name"]] == [False]


def test_a_run_is_compared_with_the_one_before(demo: gateway_kit.Running, tmp_path: Path) -> None:
    """Its ratios are shown and judged; without the one before they are not measured."""
    slos = [{"against": {"p50": 1000, "throughput": 0.5}}]
    scenario = write(tmp_path, f"http://{demo.http}", slos=slos)
    first = sluice(scenario, "--json", tmp_path / "before.json")
    assert first.returncode == 1
    assert "no run before was named" in first.stdout
    done = sluice(scenario, "--against", tmp_path / "before.json", "--json", "-")

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["against"]["differences"] == []
    refused = sluice(scenario, "--against", tmp_path / "gone.json")
    assert (refused.returncode, "--against" in refused.stderr) == (2, True)


def test_what_cannot_be_asked_is_said_before_a_run(
    demo: gateway_kit.Running, tmp_path: Path, unused_tcp_port: int
) -> None:
    """Wrong usage is 2, a model the target lacks 1, nobody there 3."""
    http = f"http://{demo.http}"
    nobody = f"http://127.0.0.1:{unused_tcp_port}"
    for code, words, arguments in (
        (2, "give a SCENARIO, or --model", ()),
        (2, "leave them out, or SCENARIO", (write(tmp_path, http), "--model", "m")),
        (2, "did you mean `p99`?", ("--target", http, "--model", "employment", "--slo", "p98=1s")),
        (2, "is no range of keys", ("--target", http, "--model", "m", "--entity", "id=5")),
        (2, "expected NAME=FIRST..LAST", ("--target", http, "--model", "m", "--entity", "1..5")),
        (2, "there is no folder", (write(tmp_path, http), "--html", tmp_path / "no" / "a.html")),
        (1, "'gone' is not found", ("--target", http, "--model", "gone")),
        (3, "--target asks one elsewhere", ("--target", nobody, "--model", "m")),
    ):
        done = sluice(*arguments)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_mistakes_are_exit_2_with_file_and_line(tmp_path: Path) -> None:
    """All of them, and nothing is sent."""
    scenario = write(tmp_path, "http://127.0.0.1:1", rate=1, slos=[{"p98": "1s"}])
    done = sluice(scenario)

    assert done.returncode == 2
    assert re.search(r"short\.yaml:\d+:\d+: error: rate: unknown key `rate`", done.stderr)
    assert "slos[0].p98: unknown key `p98`" in done.stderr
    assert "nothing was sent" in done.stderr


def test_a_target_that_is_no_address_is_exit_2(tmp_path: Path) -> None:
    """Also if it comes from the command line."""
    done = sluice(write(tmp_path, "http://127.0.0.1:1"), "--target", "localhost")

    assert done.returncode == 2
    assert "is not an address" in done.stderr


def test_a_recorded_load_has_no_rate_to_change(tmp_path: Path) -> None:
    """An option that would do nothing is wrong usage."""
    (tmp_path / "load.csv").write_text("seconds,rps\n0,20\n")
    phases = [{"name": "t", "trace": {"file": "load.csv"}}]
    done = sluice(write(tmp_path, "http://127.0.0.1:1", phases=phases), "--rate", "5")

    assert done.returncode == 2
    assert "`scale` and `speed`" in done.stderr


def test_nobody_at_the_target_is_exit_3(tmp_path: Path, unused_tcp_port: int) -> None:
    """With the reason and what to do."""
    done = sluice(write(tmp_path, f"http://127.0.0.1:{unused_tcp_port}"))

    assert done.returncode == 3
    assert "nobody answers at" in done.stderr
    assert "sluice up DIR" in done.stderr


def test_errors_only_are_exit_1_and_named(tmp_path: Path) -> None:
    """Even with an SLO that would let them pass."""
    with kit.Target(kit.busy).served() as target:
        done = sluice(write(tmp_path, target.url, slos=[{"error_rate": 1}]))

    assert done.returncode == 1
    assert "no request succeeded (503: 30): the queue is full" in done.stdout


def test_a_wrong_model_is_named_by_the_targets_own_words(
    demo: gateway_kit.Running, tmp_path: Path
) -> None:
    """Over gRPC as over HTTP."""
    requests = [{"model": "gone", "entity": {"person_id": {"keys": 5}}}]
    done = sluice(write(tmp_path, f"grpc://{demo.grpc}", requests=requests))

    assert done.returncode == 1
    assert "NOT_FOUND: 30" in done.stdout
    assert "gone" in done.stdout


def test_an_interrupted_run_says_what_it_has_and_is_invalid(tmp_path: Path) -> None:
    """Ctrl-C ends the sending; the exit code is no success."""
    phases = [{"name": "long", "for": "60s", "rate": 50}]
    with kit.Target(kit.fine).served() as target:
        process = subprocess.Popen(
            [*SLUICE, str(write(tmp_path, target.url, phases=phases))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stderr is not None
            assert "long" in process.stderr.readline()  # the first line of progress
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert "the run was stopped before its end" in said
