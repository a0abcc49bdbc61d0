"""loadtests/rollout_sim runs, and other tools' rules are what their documentation says."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rivals() -> Iterator[Any]:
    """The module, found as the program finds it."""
    sys.path.insert(0, str(ROOT / "loadtests" / "rollout_sim"))
    yield importlib.import_module("rivals")
    sys.path.remove(str(ROOT / "loadtests" / "rollout_sim"))


def minutes(rivals: Any, errors: list[int], requests: int = 100) -> Any:
    """One trial: the canary's errors each minute; production has one in a hundred."""
    canary_errors = np.array([errors])
    canary = np.full_like(canary_errors, requests)
    return rivals.Minutes(canary, canary_errors, canary * 20, canary // 100 * 20)


@pytest.mark.parametrize("how", [["-m", "loadtests.rollout_sim"], ["loadtests/rollout_sim"]])
def test_it_says_how_soon_bad_versions_are_stopped(how: list[str]) -> None:
    """Every promise about detection holds, with few runs too."""
    done = subprocess.run(
        [sys.executable, *how, "--only", "detection", "--runs", "40"],
        cwd=ROOT, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert "| errors 0.5 → 1 %, 5 % | 40 | 100.0" in done.stdout
    assert "all promises hold" in done.stdout
    assert "… all errors, 5 %, 100/s" in done.stderr


def test_an_unknown_table_is_refused_by_name() -> None:
    """Usage, exit 2."""
    done = subprocess.run(
        [sys.executable, "loadtests/rollout_sim", "--only", "abort"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "there is aborts, detection, stops" in done.stderr


def test_flagger_adds_up_failed_checks_and_counts_silence_as_one(rivals: Any) -> None:
    """The fifth is the last, however long ago the first was."""
    bad = [2, 0, 2, 0, 2, 0, 2, 0, 2, 0]
    silent = minutes(rivals, [0] * 6, requests=0)

    assert rivals.flagger(minutes(rivals, bad), threshold=5)[0].tolist() == [False] * 8 + [True] * 2
    assert rivals.flagger(silent, threshold=5)[0].tolist() == [False] * 4 + [True] * 2


def test_argo_takes_more_failed_intervals_than_its_limit(rivals: Any) -> None:
    """Each of five minutes; two of them are one more than the limit."""
    found = rivals.argo(minutes(rivals, [6, 0, 0, 0, 0] * 3), interval=5, failure_limit=1)

    assert found[0].tolist() == [False, True, True]


def test_the_z_test_pools_everything_so_far(rivals: Any) -> None:
    """Seven of two hundred are too many, of four hundred they are not."""
    found = rivals.pooled_z(minutes(rivals, [1, 6, 0, 0]), bonferroni=False)

    assert found[0].tolist() == [False, True, True, False]
