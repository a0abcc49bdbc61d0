"""When a request has become too dear, and what is said of it (loadtests/budget_verdict.py)."""

from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import script_kit

STATIONS = {"decode": 0.6, "admit": 0.1, "join": 0.02, "infer": 0.5, "write": 0.4}


@pytest.fixture
def verdict() -> ModuleType:
    """loadtests/budget_verdict.py."""
    return script_kit.module("budget_verdict")


def figures(
    verdict: ModuleType, *, alone: float = 2.0, sixteen: float = 1.6, **moved: float
) -> Any:
    """One case's ratios, as they were but for what is given."""
    return verdict.Counts(sixteen=sixteen, alone=alone, stations=STATIONS | moved)


@pytest.fixture
def budget(verdict: ModuleType) -> Any:
    """One case, counted with one version of numpy."""
    return verdict.Budget({"numpy": "2.4"}, {"http_json": figures(verdict)})


def test_what_costs_what_it_did_passes(verdict: ModuleType, budget: Any) -> None:
    """The very figures of the budget are no growth, and nothing is said of them."""
    now = {"http_json": figures(verdict)}

    assert verdict.judge(budget, now) == []
    assert verdict.words(budget, now, {"numpy": "2.4"}) == []


def test_fifteen_per_cent_more_fails_and_its_station_is_named(
    verdict: ModuleType, budget: Any
) -> None:
    """Of a request that costs 15 % more, all of it in `admit`, that station is told."""
    now = {"http_json": figures(verdict, alone=2.3, sixteen=1.9, admit=0.4)}

    assert [one.what for one in verdict.judge(budget, now)] == [
        "alone",
        "sixteen in flight",
        "admit",
    ]
    said = "\n".join(verdict.words(budget, now, {"numpy": "2.4"}))
    assert "http_json costs more: alone 2.00 → 2.30 of the floor (+15.0%)" in said
    assert "http_json: it grew in the station admit 0.10 → 0.40 of the floor (+300.0%)" in said
    assert "--update" in said


def test_growth_within_the_tolerance_passes(verdict: ModuleType, budget: Any) -> None:
    """Less than eight per cent is what another build of a library may cost."""
    now = {"http_json": figures(verdict, alone=2.14, sixteen=1.71)}

    assert verdict.judge(budget, now) == []


def test_a_small_station_may_double(verdict: ModuleType, budget: Any) -> None:
    """Twice a station that is one per cent of a request is not worth a red build."""
    now = {"http_json": figures(verdict, join=0.04)}

    assert verdict.judge(budget, now) == []


def test_a_station_may_not_hide_behind_another_that_shrank(
    verdict: ModuleType, budget: Any
) -> None:
    """A station that grew is told although the whole request costs what it did."""
    now = {"http_json": figures(verdict, admit=0.3, decode=0.4)}

    assert [one.what for one in verdict.judge(budget, now)] == ["admit"]


def test_growth_that_no_station_had_alone_names_the_largest_part(
    verdict: ModuleType, budget: Any
) -> None:
    """Where every station grew a little, the one that added most is named."""
    now = {
        "http_json": figures(verdict, alone=2.2, decode=0.68, admit=0.11, infer=0.55, write=0.45)
    }

    said = "\n".join(verdict.words(budget, now, {"numpy": "2.4"}))

    assert "no station grew much by itself, most of all decode 0.60 → 0.68" in said


def test_growth_among_many_is_told_from_growth_of_each(verdict: ModuleType, budget: Any) -> None:
    """What only sixteen at a time cost is looked for in what requests share."""
    now = {"http_json": figures(verdict, sixteen=2.0)}

    said = "\n".join(verdict.words(budget, now, {"numpy": "2.4"}))

    assert "alone it costs what it did; look at what requests share" in said


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({}, "http_json is in the budget, but nothing was counted of it"),
        ({"http_json": 1, "grpc": 1}, "grpc is not in the budget"),
    ],
)
def test_a_case_that_only_one_side_knows_fails(
    verdict: ModuleType, budget: Any, now: dict[str, int], words: str
) -> None:
    """A case can neither be dropped nor be added without the budget saying so."""
    counted = {name: figures(verdict) for name in now}

    assert verdict.judge(budget, counted)
    assert words in verdict.words(budget, counted, {"numpy": "2.4"})


def test_less_passes_with_the_advice_to_lower_the_budget(verdict: ModuleType, budget: Any) -> None:
    """A saving that the budget does not follow would be room for the next growth."""
    now = {"http_json": figures(verdict, alone=1.5)}

    assert verdict.judge(budget, now) == []
    [said] = verdict.words(budget, now, {"numpy": "2.4"})
    assert said.startswith("http_json costs less: alone 2.00 → 1.50")
    assert "--update" in said


def test_another_version_of_a_library_is_told(verdict: ModuleType, budget: Any) -> None:
    """What is counted beside our own code may be what moved."""
    now = {"http_json": figures(verdict)}

    assert verdict.words(budget, now, {"numpy": "2.5"}) == [
        "counted with numpy 2.5, the budget with 2.4"
    ]


def test_figures_are_divided_by_the_floor_of_their_own_run(verdict: ModuleType) -> None:
    """Each case is a multiple of the floor that was counted beside it."""
    counted = verdict.LoadCounts(
        "1x30", 1000.0, {"grpc": verdict.Counts(1500.0, 2000.0, {"admit": 250.0})}
    )

    assert verdict.ratios([counted]) == {"grpc": verdict.Counts(1.5, 2.0, {"admit": 0.25})}


def test_a_budget_that_was_written_is_read_back(budget: Any, tmp_path: Path) -> None:
    """The file holds everything, for people and for git."""
    command = script_kit.module("budget")
    command.write(budget, tmp_path / "budget.yaml")

    assert command.read(tmp_path / "budget.yaml") == budget


def test_a_budget_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    """A mistyped tolerance must not go back to the default unseen."""
    command = script_kit.module("budget")
    path = tmp_path / "budget.yaml"
    path.write_text("counted_with: {}\ncases: {}\ntolerance: {totl: 0.5}\n")

    with pytest.raises(msgspec.ValidationError, match="totl"):
        command.read(path)


def test_without_valgrind_the_command_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is counted by other means behind anybody's back."""
    command = script_kit.module("budget")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(command.NoValgrind, match="apt-get install -y valgrind"):
        command.count()
