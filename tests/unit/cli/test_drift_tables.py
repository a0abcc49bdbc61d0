"""`sluice drift MODEL` on a terminal: what a person must see, from handmade findings."""

from report_kit import performance_reports, reference, watched
from rich.console import Console

from serving.cli.drift.gather import Findings
from serving.cli.drift.tables import render
from serving.control.admin.answers import DriftAnswer
from serving.drift.standing import Watched
from serving.performance.report import PerformanceReport

REFERENCE = reference()


def shown(*found: Watched, words: str = "", performance: PerformanceReport | None = None) -> str:
    """What is printed."""
    findings = Findings(
        model="m",
        sluice="1",
        drift=DriftAnswer(model="m", watched=list(found), words=words),
        performance={} if performance is None else {"version": performance},
    )
    console = Console(width=250)
    with console.capture() as captured:
        console.print(render(findings))
    return captured.get()


def line(text: str, start: str) -> str:
    """The first line that starts with a word."""
    return next(one for one in text.splitlines() if one.startswith(start))


def test_the_verdict_comes_first_then_every_reason() -> None:
    """With the rows it is of, and what they were compared with."""
    text = shown(watched(REFERENCE)).splitlines()

    assert text[0] == "m v1 (production): alert"
    assert text[1].startswith("  • data quality: column `town`: a value the reference never had")
    assert text[2].startswith("  • 2 of 3 columns drifted, most of all `age`")
    assert "1,980 rows from 1970-01-01 02:00Z to 1970-01-01 03:00Z, against 5,000 of" in text[3]


def test_a_line_has_a_columns_shift_since_when_and_its_course() -> None:
    """The last bar is the highest where the last window is the first that drifts."""
    age = line(shown(watched(REFERENCE)), "age ")

    assert "inform" in age
    assert "1970-01-01 02:00Z" in age
    assert "share of" in age
    assert age.rstrip().endswith("█")
    assert "3 WINDOWS" in line(shown(watched(REFERENCE)), "COLUMN")


def test_small_shifts_look_small() -> None:
    """Noise is not blown up to the height of a drift."""
    quiet = line(shown(watched(REFERENCE, hours=[(2_000, 0, 0)] * 6)), "age ")

    assert not set(quiet) & set("▅▆▇█")


def test_columns_that_are_not_compared_are_named() -> None:
    """Nobody has to wonder where the score is."""
    text = shown(watched(REFERENCE, foreign=["score"]))

    assert "not compared, for the reference is of another model file: score" in text
    assert not any(one.startswith("score ") for one in text.splitlines())


def test_labels_add_performance_with_intervals_and_coverage() -> None:
    """One line a version."""
    text = shown(watched(REFERENCE), performance=performance_reports()["version"])

    assert "ACCURACY" in text
    assert "% –" in line(text, "v1 ")
    assert line(text, "v1 (production) ").split() == [
        "v1", "(production)", "90.0", "%", "88.0", "%", "–", "92.0", "%", "1,000",
    ]  # fmt: skip


def test_a_model_without_traffic_has_one_line() -> None:
    """And nothing else."""
    assert shown(words="no request was counted yet") == "m: no request was counted yet\n"
