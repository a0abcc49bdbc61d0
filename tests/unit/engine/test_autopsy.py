"""From what a dead worker left to who is blamed, and what is said of it."""

import signal
from pathlib import Path

import pytest
from pipeline_kit import Kit

from serving.clock import ManualClock
from serving.config.snapshot_codec import encode_snapshot
from serving.engine.autopsy import Autopsy, Verdict
from serving.quarantine import register
from serving.quarantine.marks import Marks

SHA = "2" * 64
DEAD = -signal.SIGSEGV


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A data directory with the kit's snapshot: `v1` is production."""
    (tmp_path / "run").mkdir()
    (tmp_path / "snapshot.json").write_bytes(encode_snapshot(Kit(tmp_path).snapshot()))
    return tmp_path


def left(data: Path, *versions: str, crashed: int | None = None) -> None:
    """What worker-0 left: versions run by threads 1, 2, …, and which of these crashed."""
    marks = Marks(data / "run" / "worker-0.running")
    for thread, version in enumerate(versions, start=1):
        marks.take("m", version, SHA).cell[0] = thread
    words = "" if crashed is None else f"Fatal\n\nCurrent thread 0x{crashed:016x} (most recent\n"
    (data / "run" / "worker-0.crash").write_text(words)


async def test_the_second_death_of_a_version_quarantines_it(data: Path) -> None:
    """The first is said; the second comes with what to do, and counts as cured."""
    examine = Autopsy(data, "worker-0", ManualClock())
    left(data, "v1", "v2", crashed=2)
    first = await examine(DEAD)
    left(data, "v1", "v2", crashed=2)
    second = await examine(DEAD)

    assert first == Verdict(words="while running m/v2")
    assert second.cured
    [note] = second.notes
    assert "m/v2 is quarantined: 2 worker processes crashed" in note
    assert "`sluice quarantine lift m v2`" in note
    assert [one.version for one in register.load(data).quarantined] == ["v2"]


@pytest.mark.parametrize("returncode", [0, 1, -signal.SIGKILL, -signal.SIGTERM])
async def test_other_deaths_are_not_examined(data: Path, returncode: int) -> None:
    """Whatever ran at that moment."""
    left(data, "v2", crashed=1)

    assert await Autopsy(data, "worker-0")(returncode) == Verdict()
    assert register.load(data).crashes == []


async def test_where_the_thread_is_not_known_production_is_spared(data: Path) -> None:
    """The others are suspected, all of them."""
    left(data, "v1", "v2", "v3")

    verdict = await Autopsy(data, "worker-0")(DEAD)

    assert verdict.words == "while running m/v2 or running m/v3"


async def test_a_crash_outside_of_all_versions_is_nobodys(data: Path) -> None:
    """So is one of a worker that left nothing."""
    left(data, "v2", crashed=99)

    [note] = (await Autopsy(data, "worker-0")(DEAD)).notes

    assert note == f"its last stacks are in {data}/run/worker-0.last-crash"
    assert await Autopsy(data, "worker-7")(DEAD) == Verdict()


async def test_a_register_that_cannot_be_written_is_said(data: Path) -> None:
    """Supervision goes on."""
    left(data, "v2", crashed=1)
    (data / ".quarantine.json.lock").mkdir()

    verdict = await Autopsy(data, "worker-0")(DEAD)

    assert verdict.words == "while running m/v2"
    assert "cannot be written down: Is a directory" in verdict.notes[0]
    assert not verdict.cured
