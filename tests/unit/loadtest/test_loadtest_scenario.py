"""A scenario's mistakes: file, line, key, and what to do."""

from pathlib import Path

import pytest

from serving.errors import InvalidConfig
from serving.loadtest.reading import override, read_scenario

SCENARIOS = Path(__file__).parents[3] / "loadtests" / "scenarios"
FINE = """\
schema_version: 1
name: fine
deadline: 50ms
requests:
  - {model: m, entity: {id: {keys: 10}}}
phases:
  - {name: a, for: 2s, rate: 10}
slos:
  - {phase: a, p99: 50ms}
"""


def problems(folder: Path, *changes: tuple[str, str]) -> str:
    """What is said of the fine scenario with these changes; empty for nothing."""
    text = FINE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "scenario.yaml"
    path.write_text(text)
    try:
        read_scenario(path)
    except InvalidConfig as error:
        found = error.problems or (error,)
        return "\n".join(str(one).replace(f"{folder}/", "") for one in found)
    return ""


def test_a_fine_scenario_has_no_problem(tmp_path: Path) -> None:
    """What the other tests break is whole."""
    assert problems(tmp_path) == ""


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_scenarios_are_fine(path: Path) -> None:
    """Each can be read, and asks for something."""
    assert read_scenario(path).slos


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("p99: 50ms", "p95: 50ms", "scenario.yaml:9:16: error: slos[0].p95: unknown key `p95`"),
        ("deadline:", "dead_line:", "did you mean `deadline`?"),
        ("p99: 50ms", "p99: 50", "50ms"),
        ("phase: a", "phase: b", "there is no phase `b`"),
        ("p99: 50ms", "goodput: 2", "slos[0].goodput"),
        ("phase: a, p99: 50ms", "phase: a", "an SLO that asks for nothing"),
        ("rate: 10", "rate: 10, ramp: {from: 1, to: 2}", "found `rate` and `ramp`"),
        (", rate: 10", "", "exactly one of rate, ramp, steps, spike, trace, log; found none"),
        ("for: 2s, ", "", "missing key `for`"),
        ("rate: 10", "spike: {base: 1, peak: 2, at: 1s, lasts: 2s}", "ends after the phase"),
        ("rate: 10", "trace: {file: gone.csv}", "there is no file gone.csv"),
        ("rate: 10", "log: {folder: ., model: n}", "no kind of request asks `n`"),
        ("entity: {id: {keys: 10}}", "body: gone.json", "there is no file gone.json"),
        (", entity: {id: {keys: 10}}", "", "a request needs either `entity` or `body`"),
        ("name: fine", "name: fine\ntarget: ftp://x", "is not an address"),
        ("name: fine", "name: fine\ntarget: http://u:p@x", "holds no credential"),
        ("name: fine", "name: fine\nwarmup: 2s", "nothing is left to measure"),
        ("p99: 50ms", "p99.9: 10s", "requests without an answer count with `timeout` (10s)"),
        ("rate: 10", "rate: 10, warmup: true", "all phases are warm-up"),
        ("rate: 10", "rate: 10, warmup: true", "`a` is warm-up, which counts for no SLO"),
        ("name: fine", "name: fine\nheaders: {Authorization: x}", "put the token into"),
        ("name: fine", "name: fine\nheaders: {content-length: '1'}", "by the load test itself"),
        ("p99: 50ms", "roles: {canary: {}}", "expected `at_least`, `at_most` or both"),
        ("p99: 50ms", "roles: {canry: {at_most: 1}}", "no answer says `canry` (did you mean"),
        ("p99: 50ms", "feature_status: {GOOD: {at_most: 1}}", "no answer says `GOOD` (known here:"),
        (
            "p99: 50ms",
            "versions: {v1: {at_least: 0.2, at_most: 0.1}}",
            "nothing is at least 0.2 and at most 0.1",
        ),
        (
            "entity: {id: {keys: 10}}",
            "entity: {id: {keys: 10}}, expect: {outputs: {p: {at_least: 1, at_most: 0}}}",
            "requests[0].expect.outputs.p: nothing is at least 1 and at most 0",
        ),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    """Each with the words that mend it."""
    assert words in problems(tmp_path, (old, new))


def test_goodput_without_a_deadline_is_not_measured(tmp_path: Path) -> None:
    """An SLO for something that nobody measures is a mistake, not a green report."""
    found = problems(tmp_path, ("deadline: 50ms\n", ""), ("p99: 50ms", "goodput: 0.9"))

    assert "goodput is measured against `deadline`, which this scenario does not set" in found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Says so, with its name."""
    with pytest.raises(InvalidConfig, match=r"gone\.yaml: No such file"):
        read_scenario(tmp_path / "gone.yaml")


def test_length_and_rate_can_be_overridden(tmp_path: Path) -> None:
    """Phases and spikes shrink in proportion; the highest rate becomes the one asked for."""
    found = problems(
        tmp_path,
        (
            "  - {name: a, for: 2s, rate: 10}",
            """\
  - {name: a, for: 2s, rate: 10}
  - {name: b, for: 6s, spike: {base: 10, peak: 40, at: 2s, lasts: 2s}}
  - {name: c, for: 2s, ramp: {from: 10, to: 20}}
  - {name: d, for: 2s, steps: {from: 10, to: 20}}""",
        ),
    )
    assert found == ""
    given = read_scenario(tmp_path / "scenario.yaml")

    asked = override(given, target="grpc://x:1", seconds=6, rate=80)

    a, b, c, d = asked.phases
    assert asked.target == "grpc://x:1"
    assert (a.length, a.rate, b.length) == (1.0, 20.0, 3.0)
    assert b.spike is not None
    assert (b.spike.base, b.spike.peak, b.spike.at, b.spike.lasts) == (20, 80, 1.0, 1.0)
    assert c.ramp is not None
    assert d.steps is not None
    assert (c.ramp.to, d.steps.start) == (40, 20)
