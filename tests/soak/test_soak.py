"""Memory stays where it is: a short run that counts objects, and the long one."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SOAK = Path(__file__).parents[2] / "loadtests" / "soak.py"
Say = Callable[[str, object], None]


@pytest.fixture
def soak() -> ModuleType:
    """loadtests/soak.py."""
    return importlib.import_module("soak")


@pytest.mark.timeout(400)
def test_a_request_and_a_change_leave_nothing_behind(
    soak: ModuleType, tmp_path: Path, record_property: Say
) -> None:
    """Every kind of request as often as any other, changes, loads: Python's blocks do not add up.

    Resident memory says little in a minute; blocks in use after a collection are exact. A kind is
    a sixteenth or an eighth of the requests, so one object kept of each of the rarest is 0.05 a
    request.
    """
    plan = soak.Plan(
        requests=20_000, changes=12, loads=6, rounds=6, warm_up=6, even=True, seconds=300
    )
    seen = soak.soak(plan, tmp_path)
    report = importlib.import_module("soak_report")
    judged = report.verdict(seen.samples, seen.wrong, seen.problems, bound=1.0)
    leaks = {leak.process: leak for leak in judged.leaks}
    record_property("seen", "; ".join(map(report.left_behind, judged.leaks)))

    assert judged.reasons == []
    last = seen.samples[-1]
    assert last.requests >= 39_900
    assert (last.changes, last.loads) == (20, 10)
    assert {"worker-0", "control", "engine"} <= leaks.keys()
    assert {name: leak for name, leak in leaks.items() if leak.blocks_per_request > 0.04} == {}


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_million_requests_and_200_changes_leave_memory_within_5_percent(
    record_property: Say,
) -> None:
    """The whole soak test, as `make soak` runs it."""
    done = subprocess.run(
        [sys.executable, str(SOAK)], stdout=subprocess.PIPE, text=True, check=False
    )
    record_property("seen", done.stdout)

    assert done.returncode == 0, done.stdout
