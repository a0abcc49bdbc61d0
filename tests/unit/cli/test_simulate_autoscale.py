"""`sluice simulate autoscale`, as it is called."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serving.cli.app import app
from serving.cli.sparkline import columns, sparkline


def call(*words: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["simulate", "autoscale", *words])


def test_a_shape_is_shown_as_bars_a_table_and_words() -> None:
    """For people."""
    done = call("--shape", "spike", "--peak", "9000", "--max", "4", "--for", "5m")

    assert done.exit_code == 0, done.output
    assert "▁▁█" in done.output
    assert "up to 9,000 requests/s" in done.output
    assert "1 to 4 workers, target 60% busy" in done.output
    assert "…" not in done.output


def test_settings_come_from_the_directory_and_from_options(tmp_path: Path) -> None:
    """An option wins."""
    (tmp_path / "gateway.yaml").write_text(
        "schema_version: 1\nengine: {workers: {min: 2, max: 6, target_busy: 0.5}, worker_cpus: 2}\n"
        "limits: {default_deadline: 200ms}\n"
    )
    (tmp_path / "load.csv").write_text("seconds,rps\n0,10000\n60,10000\n")
    load = str(tmp_path / "load.csv")

    said = json.loads(call(load, "--config", str(tmp_path), "--json").output)
    fewer = json.loads(call(load, "--config", str(tmp_path), "--max", "3", "--json").output)

    assert said["moments"][0]["wanted"] == 2
    assert (said["most"], fewer["most"]) == (6, 3)
    assert said["cpu_hours"] == pytest.approx(2 * said["worker_seconds"] / 3600)
    assert max(moment["mean"] for moment in said["moments"]) < 0.21


def test_a_bound_that_is_passed_is_an_answer_of_no() -> None:
    """Exit 1, for CI."""
    words = ["--shape", "steady", "--peak", "9000", "--max", "1"]

    assert call(*words).exit_code == 0
    assert call(*words, "--max", "4", "--fail-on", "50").exit_code == 0
    over = call(*words, "--fail-on", "5")
    assert over.exit_code == 1
    assert "would be refused, more than 5 %" in over.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "give either TRACE or --shape"),
        (["x.csv", "--shape", "day"], 2, "give either TRACE or --shape"),
        (["x.csv"], 1, "x.csv: No such file"),
        (["--shape", "zigzag"], 2, "zigzag"),
        (["--shape", "day", "--work", "0s"], 2, "--work"),
        (["--shape", "day", "--min", "3", "--max", "2"], 2, "--min 3 is more than --max 2"),
        (["--shape", "day", "--for", "10"], 2, "expected a number with a unit"),
        (["--shape", "day", "--config", "nowhere"], 1, "no such file"),
    ],
)
def test_wrong_usage_is_named(words: list[str], code: int, said: str) -> None:
    """And nothing is replayed."""
    done = call(*words)

    assert done.exit_code == code, done.output
    assert said in done.output


def test_bars() -> None:
    """The least is the lowest bar; a column shows the highest of what it stands for."""
    assert sparkline([0, 1, 7]) == "▁▂█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([4, 8], low=0) == "▅█"
    assert sparkline([]) == ""
    assert columns([1, 2], 5) == [1, 2]
    assert columns([1, 9, 2, 3, 4, 0], 3) == [9, 3, 4]
