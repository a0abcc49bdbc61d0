import signal

import pytest

from serving.quarantine.decision import Crash, Suspect, condemned, is_crash, suspects
from serving.quarantine.marks import Marked

GOOD = Marked("m", "v1", "a" * 64, 11, loading=False)
BAD = Marked("m", "v2", "b" * 64, 22, loading=False)
NEW = Marked("m", "v3", "c" * 64, 33, loading=True)


def crash(at: float, *versions: str, worker: str = "worker-0", sha256: str = "b" * 64) -> Crash:
    """A death at a second, of these versions of one model."""
    return Crash(
        at=at,
        worker=worker,
        signal="SIGSEGV",
        suspects=tuple(Suspect("m", version, sha256) for version in versions),
    )


def names(crashes: list[Crash]) -> list[str]:
    """Versions that the latest crash quarantines."""
    return [one.version for one in condemned(crashes, [])]


# --- what counts as a crash -----------------------------------------------------------------


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"])
def test_a_death_by_its_own_code_is_a_crash(number: str) -> None:
    """Signals that native code raises."""
    assert is_crash(-signal.Signals[number])


@pytest.mark.parametrize("returncode", [0, 1, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP])
def test_a_death_by_somebody_elses_hand_is_none(returncode: int) -> None:
    """A kill -9, the watchdog, the kernel short of memory, an exit."""
    assert not is_crash(returncode)


# --- who is to blame ------------------------------------------------------------------------


def test_the_thread_that_crashed_tells_which_version_it_was() -> None:
    """Others that ran at the same moment are innocent."""
    assert [one.version for one in suspects([GOOD, BAD, NEW], 22)] == ["v2"]
    assert suspects([GOOD, BAD, NEW], 33)[0].loading


def test_a_thread_that_ran_no_version_blames_none() -> None:
    """The crash was somewhere else."""
    assert suspects([GOOD, BAD], 99) == ()


def test_without_a_thread_production_is_the_last_to_be_suspected() -> None:
    """Only if it was the only one that ran."""
    production = {("m", "v1")}

    assert [one.version for one in suspects([GOOD, BAD], None, production)] == ["v2"]
    assert [one.version for one in suspects([GOOD], None, production)] == ["v1"]
    assert suspects([], None, production) == ()


# --- when it is enough ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "quarantined"), [(0.0, ["v2"]), (60.0, ["v2"]), (60.1, []), (3600.0, [])]
)
def test_two_crashes_within_a_minute_quarantine(second: float, quarantined: list[str]) -> None:
    """Of any workers; the minute includes its end."""
    assert names([crash(0.0, "v2"), crash(second, "v2", worker="worker-1")]) == quarantined


def test_one_crash_does_not() -> None:
    """It may be chance; nor do none."""
    assert names([crash(0.0, "v2")]) == []
    assert names([]) == []


def test_crashes_of_different_versions_do_not_add_up() -> None:
    """Nor of one name with other bytes."""
    assert names([crash(0.0, "v1"), crash(1.0, "v2")]) == []
    assert names([crash(0.0, "v2", sha256="c" * 64), crash(1.0, "v2")]) == []


def test_of_several_suspects_those_that_were_there_both_times_are_condemned() -> None:
    """What one crash leaves open the next one settles."""
    assert names([crash(0.0, "v1", "v2"), crash(1.0, "v2", "v3")]) == ["v2"]


def test_the_reason_says_how_often_how_fast_who_and_by_what() -> None:
    """For people at three in the night."""
    [one] = condemned([crash(100.0, "v2"), crash(130.0, "v2", worker="worker-1")], [])

    assert (one.crashes, one.since) == (2, 130.0)
    assert one.reason == (
        "2 worker processes crashed within 30 s while it was running (last worker-1, SIGSEGV)"
    )


def test_a_closed_case_is_not_opened_again() -> None:
    """A worker that had not heard yet may still die of it."""
    crashes = [crash(0.0, "v2"), crash(1.0, "v2")]
    found = condemned(crashes, [])

    assert condemned([*crashes, crash(2.0, "v2")], found) == []
