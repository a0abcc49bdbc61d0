from collections.abc import Iterable

import pytest
from rich.console import Console
from rollout_admin_kit import standing

from serving.cli.overview import Overview
from serving.cli.span import age
from serving.cli.status_tables import memory, render
from serving.control.admin import answers
from serving.drift.verdict import Level
from serving.rollout.standing import RolloutStanding


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_661, "1 h 1 min"),
        (3_601, "1 h 1 s"),
        (190_000, "2 d 4 h"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    """Nobody needs the seconds of a week; a clock that went back shows nothing negative."""
    assert age(seconds) == words


@pytest.mark.parametrize(("size", "words"), [(None, "–"), (0, "0 MiB"), (150 << 20, "150 MiB")])
def test_memory_is_told_in_mebibytes(size: int | None, words: str) -> None:
    """A process that is not there holds none that could be told."""
    assert memory(size) == words


def shown(*levels: answers.DriftLevel, rollouts: Iterable[RolloutStanding] = ()) -> str:
    """The tables of a gateway with one version in two roles."""
    roles = [answers.RoleShare(role=one, percent=50) for one in ("production", "shadow")]
    version = answers.VersionStatus(
        version="v1", sha256="", roles=roles, inputs=[], outputs=[], batchable=True
    )
    model = answers.ModelStatus(model="m", loaded=True, placement="inline", versions=[version])
    status = answers.Status(
        version="1", ready=True, revision=1, author="a", published_at=0.0, workers=[], rates=[],
        store=answers.StoreStatus(name="Valkey", up=True), models=[model], drift=list(levels),
        rollouts=list(rollouts),
    )  # fmt: skip
    console = Console(width=200)
    with console.capture() as captured:
        console.print(render(Overview(control=status)))
    return captured.get()


def level(role: str, word: Level) -> answers.DriftLevel:
    """A verdict on the version's traffic in a role."""
    return answers.DriftLevel(model="m", version="v1", role=role, level=word)


def test_the_gravest_verdict_of_a_version_stands_in_its_line() -> None:
    """With the role, where there are several."""
    text = shown(level("production", "none"), level("shadow", "alert"))

    assert "drift" in text
    assert "alert (shadow)" in text
    assert "none" in shown(level("production", "none"))


def test_without_a_watched_model_there_is_no_column_for_it() -> None:
    """Nobody wonders what it means."""
    assert "drift" not in shown()


def test_a_live_rollout_is_a_line() -> None:
    """One that is over is not."""
    text = shown(rollouts=[standing(), standing(model="old", phase="done")])

    assert (
        "rollout of demo: v1 → v2, progressing, step 2 of 4: weight 5 %, errors undecided" in text
    )
    assert "old" not in text
