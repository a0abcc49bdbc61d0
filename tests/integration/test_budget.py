"""No request costs more instructions than `loadtests/budget.yaml` says, and the guard notices.

Everything is counted once, under valgrind, with fifteen per cent more work in one station besides.
"""

import fcntl
import os
import shutil
from types import ModuleType
from typing import Any

import msgspec
import pytest
import script_kit

BURDEN = 0.15

pytestmark = pytest.mark.timeout(660)  # of another's work, not of its own: a minute of CPU


@pytest.fixture(scope="module")
def budget() -> ModuleType:
    """loadtests/budget.py."""
    return script_kit.module("budget")


@pytest.fixture(scope="module")
def verdict() -> ModuleType:
    """loadtests/budget_verdict.py."""
    return script_kit.module("budget_verdict")


@pytest.fixture(scope="module")
def counted(
    budget: ModuleType, verdict: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """What everything costs, counted by whichever test process comes first."""
    if shutil.which("valgrind") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("valgrind is not installed: apt-get install -y valgrind")
        pytest.skip("instructions are counted by valgrind: apt-get install -y valgrind")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = shared / "instruction-counts.json"
    with (shared / "instruction-counts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            path.write_bytes(msgspec.json.encode(budget.count(burden=BURDEN)))
    return msgspec.json.decode(path.read_bytes(), type=list[verdict.LoadCounts])


def test_no_request_costs_more_than_its_budget(
    budget: ModuleType, verdict: ModuleType, counted: Any, record_property: Any
) -> None:
    """Every case, alone and sixteen at a time, stays within the tolerance of what is committed."""
    known, now = budget.read(), verdict.ratios(counted)
    for name, one in now.items():
        record_property("seen", f"{name}: {one.sixteen:.2f} × the floor, {one.alone:.2f} alone")

    assert not verdict.judge(known, now), "\n".join(
        [*verdict.words(known, now, budget.counted_with()), *verdict.table(known, now)]
    )


def test_fifteen_per_cent_more_work_is_noticed_and_found(
    budget: ModuleType, verdict: ModuleType, counted: Any
) -> None:
    """Work put into `admit` makes its case fail, by about what was put in, and names no other."""
    before = verdict.Budget(budget.counted_with(), verdict.ratios(counted))
    after = verdict.ratios(counted, burdened=True)

    grown = {one.what: one for one in verdict.judge(before, after)}

    assert set(grown) == {"alone", "sixteen in flight", "admit"}
    assert grown["alone"].share == pytest.approx(BURDEN, rel=0.2)
    added = grown["admit"].now - grown["admit"].budget
    assert added == pytest.approx(grown["alone"].now - grown["alone"].budget, rel=0.1)


def test_stations_add_up_to_the_request(verdict: ModuleType, counted: Any) -> None:
    """What is counted by station is the request's, all of it and nothing else."""
    for name, one in verdict.ratios(counted).items():
        assert sum(one.stations.values()) == pytest.approx(one.alone, rel=0.1), name
