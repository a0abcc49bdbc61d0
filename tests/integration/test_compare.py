"""The comparison measures real servers, and shows no figures of one that is wrong or not there."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import compare_kit
import pytest
import script_kit

compare = script_kit.module("compare")
servers = script_kit.module("compare_servers")
measure = script_kit.module("compare_measure")
workloads = script_kit.module("bench_workloads")
BRIEFLY = script_kit.module("compare_figures").Settings(
    rounds=1, seconds=0.2, connections=2, rates=[100.0], features=servers.FEATURES
)
SCRIPT = script_kit.LOADTESTS / "compare.py"


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run compare.py to its end."""
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=220,
    )


def compared(*others: Any) -> dict[str, Any]:
    """Rows by name, of the floor and other servers, each with one row of its name."""
    chosen = {server.rows[0].name: server.rows[0] for server in (servers.SERVERS[0], *others)}
    made = compare.Comparison(chosen, BRIEFLY, lambda _said: None, [servers.SERVERS[0], *others])
    made.run()
    return made.reports


@pytest.mark.timeout(240)  # five rows, and a machine may be busy with other tests
def test_servers_are_measured_and_written_down(tmp_path: Path) -> None:
    """A moment each of floor, uvicorn and Sluice's protocols: figures of every kind."""
    file = tmp_path / "figures.json"
    asked = "floor,uvicorn,sluice-json,sluice-binary,sluice-grpc"
    limits = ["--rounds", "1", "--seconds", "0.3", "--rates", "50", "--connections", "4"]

    done = command("--only", asked, *limits, "--json", file)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    assert [row["name"] for row in found["rows"]] == asked.split(",")
    assert found["command"].startswith(f"python loadtests/compare.py --only {asked}")
    for row in found["rows"]:
        [sample] = row["samples"]
        assert row["trouble"] == ""
        assert min(sample["cpu_us"], sample["floor_us"], sample["alone_p50_us"]) > 0
        assert sample["cpu_us"] == pytest.approx(sum(sample["parts_us"].values()))
        assert 0 < sample["pss_mib"] < sample["rss_mib"]
        assert sample["start_seconds"] > 0
        assert [(at["rate"], at["p50_us"] <= at["p99_us"]) for at in sample["rates"]] == [
            (50, True)
        ]
        assert f"| {row['title']} " in done.stdout
    assert {"worker", "control", "store"} <= found["rows"][2]["samples"][0]["parts_us"].keys()


def test_a_server_that_answers_other_numbers_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers 200 to everything, and has no figures."""
    monkeypatch.setattr(servers, "WRONG_SECONDS", 0.2)

    @contextmanager
    def deceived(workload: Any, folder: Path) -> Iterator[Any]:
        expected = [[0.9, 0.1]] * len(workload.expected)
        with servers.start_floor(workload._replace(expected=expected), folder) as started:
            yield started

    found = compared(servers.Server("liar", "a liar", "liar", (servers.Row("liar"),), deceived))

    assert found["liar"].trouble.startswith("WRONG: [")
    assert (len(found["liar"].samples), len(found["floor"].samples)) == (0, 1)


SAME_ANSWER = """
import http.server, sys

class Same(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Same)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_server_that_always_answers_the_same_is_wrong() -> None:
    """It looks right at its first request, and is found out by the others."""

    @contextmanager
    def start(workload: Any, folder: Path) -> Iterator[Any]:
        output = {"name": "probabilities", "data": workload.expected[0]}
        words = [sys.executable, "-c", SAME_ANSWER, json.dumps({"outputs": [output]})]
        log = folder / "same.log"

        def address() -> str | None:
            said = log.read_text().splitlines()
            return f"127.0.0.1:{said[0]}" if said else None

        with servers.running(words, log, address, workload) as (pid, where, seconds):
            yield servers.Started(pid, where, "", seconds, dict)

    found = compared(servers.Server("same", "it", "same", (servers.Row("same"),), start))

    assert found["same"].trouble.startswith("WRONG: ")
    assert "was answered" in found["same"].trouble
    assert found["same"].samples == []


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    """Its output says why, so that nobody has to look for a log."""
    words = [sys.executable, "-c", "import sys; sys.exit('no such model')"]
    workload = workloads.build("1x30", tmp_path)

    with (
        pytest.raises(servers.DidNotStart, match=r"ended with 1.*no such model"),
        servers.running(words, tmp_path / "log", lambda: "127.0.0.1:9", workload),
    ):
        pytest.fail("it cannot have started")


def test_a_server_that_refuses_connections_is_given_up(tmp_path: Path) -> None:
    """It runs, and nobody listens where it should."""
    waits = [sys.executable, "-c", "input()"]
    workload = workloads.build("1x30", tmp_path)

    with (
        pytest.raises(servers.DidNotStart, match="did not answer in time"),
        servers.running(
            waits, tmp_path / "log", lambda: "127.0.0.1:9", workload, patience_seconds=0.3
        ),
    ):
        pytest.fail("it cannot have started")


def test_wrong_numbers_are_noticed_in_open_loop(tmp_path: Path) -> None:
    """The open loop looks at answers as the closed one does."""
    workload = workloads.build("1x30", tmp_path)
    with servers.start_floor(workload, tmp_path) as started:
        deceived = workload._replace(expected=[[0.9, 0.1]] * len(workload.expected))
        orders = measure.orders("http", started, deceived)

        with (
            measure.generator(orders) as run,
            pytest.raises(measure.BadAnswers, match="was answered"),
        ):
            run(measure.Phase(0.2, rate=100.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "mlsever"], "there is no server mlsever; did you mean mlserver?"),
        (["--only", "floor", "--skip", "floor"], "--skip leaves nothing"),
        (["--rates", "fast"], "--rates takes numbers by comma, not fast"),
        (["--seconds", "0"], "must be above 0"),
        (["--json", "/nowhere/at/all.json"], "there is no folder /nowhere/at"),
    ],
)
def test_wrong_usage_is_refused_before_anything_starts(arguments: list[str], words: str) -> None:
    """Exit 2 and what is wrong."""
    done = command(*arguments)

    assert done.returncode == 2
    assert words in done.stderr


def test_a_peer_asked_for_by_name_must_be_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that installs it is said."""
    monkeypatch.setattr(script_kit.module("peers.catalogue"), "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--only", "floor,mlserver"])

    with pytest.raises(SystemExit, match="2"):
        compare.main()

    assert "`python -m loadtests.peers install mlserver`" in capsys.readouterr().err


@pytest.mark.parametrize(("trouble", "code"), [("", 0), ("WRONG: [0.1]", 1)])
def test_figures_of_an_earlier_run_are_shown_again(tmp_path: Path, trouble: str, code: int) -> None:
    """`--from` measures nothing; a run that went wrong still says so."""
    file = tmp_path / "figures.json"
    samples = [] if trouble else [compare_kit.sample(1, 100.0)]
    made = compare_kit.report(compare_kit.row("x", *samples, trouble=trouble))
    file.write_bytes(compare_kit.encoded(made))

    done = command("--from", file)

    assert done.returncode == code, done.stderr
    assert done.stdout == script_kit.module("compare_page").text(made)


def test_a_file_without_figures_is_named(tmp_path: Path) -> None:
    """It is no traceback."""
    (tmp_path / "x.json").write_text("{}")

    done = command("--from", tmp_path / "x.json")

    assert done.returncode == 1
    assert "x.json holds no figures of a comparison" in done.stderr


@pytest.mark.parametrize(
    "arguments", [[SCRIPT, "--help"], ["-m", "loadtests.peers", "--help"]], ids=["compare", "peers"]
)
def test_help_shows_commands_to_copy(arguments: list[Any]) -> None:
    """Both teach by examples."""
    done = subprocess.run(
        [sys.executable, *arguments],
        check=True, capture_output=True, text=True, timeout=60, cwd=script_kit.LOADTESTS.parent,
    )  # fmt: skip

    assert "    python " in done.stdout
    assert "python -m loadtests.peers install" in done.stdout


def test_the_examples_of_the_help_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example names servers and options that there are."""
    monkeypatch.setattr(servers, "installed", lambda _peer: "")
    shown = [line.split("#")[0].split() for line in compare.__doc__.splitlines()]
    examples = [words[1:] for words in shown if words[:2] == ["python", "loadtests/compare.py"]]

    assert len(examples) >= 5
    for example in examples:
        monkeypatch.setattr(sys, "argv", example)
        assert compare.read_command_line().rows


def test_an_unknown_peer_is_not_installed() -> None:
    """The near name is said, and nothing is made."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.peers", "install", "bentml"],
        check=False, capture_output=True, text=True, timeout=60, cwd=script_kit.LOADTESTS.parent,
    )  # fmt: skip

    assert done.returncode == 2
    assert "there is no peer bentml; did you mean bentoml?" in done.stderr


def test_a_peer_that_cannot_be_installed_is_told_with_the_installers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not count as installed."""
    catalogue = script_kit.module("peers.catalogue")
    peer = catalogue.Peer("broken", "Broken", "broken")
    monkeypatch.setattr(catalogue, "HERE", tmp_path)
    monkeypatch.setattr(catalogue, "ENVIRONMENTS", tmp_path / "environments")
    peer.requirements.write_text(f"{tmp_path}/nowhere\n")

    assert script_kit.module("peers.__main__").install(peer) is False

    said = capsys.readouterr().err
    assert "Broken cannot be installed here" in said
    assert "nowhere" in said
    assert catalogue.installed(peer)
