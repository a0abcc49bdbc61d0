import subprocess
import sys
from pathlib import Path

import pytest

from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect
from serving.quarantine.history import Register

BYTES = "b" * 64


def crash(at: float, version: str = "v2", sha256: str = BYTES) -> Crash:
    """A worker's death of one version."""
    suspects = (Suspect("m", version, sha256),)
    return Crash(at=at, worker="worker-0", signal="SIGFPE", suspects=suspects)


def quarantine(data: Path, version: str = "v2") -> None:
    """Two crashes in a row."""
    data.mkdir(exist_ok=True)
    assert register.record(data, crash(1.0, version)) == []
    [new] = register.record(data, crash(2.0, version))
    assert new.version == version


def test_the_second_crash_quarantines_and_the_file_says_so(tmp_path: Path) -> None:
    """What was decided outlives whoever decided it."""
    quarantine(tmp_path)

    found = register.load(tmp_path)
    assert [one.key for one in found.quarantined] == [("m", "v2", BYTES)]
    assert found.find(("m", "v2", BYTES)) == found.quarantined[0]
    assert found.find(("m", "v2", "c" * 64)) is None
    assert (tmp_path / register.FILE).stat().st_mode & 0o777 == 0o600


def test_lifting_forgives_the_crashes_too(tmp_path: Path) -> None:
    """Two more are needed; lifting again finds nothing."""
    quarantine(tmp_path)

    assert [one.version for one in register.lift(tmp_path, "m", "v2")] == ["v2"]

    assert register.lift(tmp_path, "m", "v2") == []
    assert register.load(tmp_path).quarantined == []
    assert register.record(tmp_path, crash(3.0)) == []
    assert [one.version for one in register.record(tmp_path, crash(4.0))] == ["v2"]


def test_what_another_node_knows_is_written_down_once(tmp_path: Path) -> None:
    """It is heard every second, and new once."""
    quarantine(tmp_path / "there")
    known = register.load(tmp_path / "there")
    (tmp_path / "here").mkdir()

    assert register.hear(tmp_path / "here", known)
    assert not register.hear(tmp_path / "here", known)

    assert register.load(tmp_path / "here") == known


def test_a_version_that_is_not_configured_any_more_is_dropped(tmp_path: Path) -> None:
    """So is one that has other bytes now."""
    quarantine(tmp_path)
    quarantine(tmp_path, "v3")

    gone = register.keep_only(tmp_path, frozenset({("m", "v2", "c" * 64), ("m", "v3", BYTES)}))

    assert [one.version for one in gone] == ["v2"]
    assert [one.version for one in register.load(tmp_path).quarantined] == ["v3"]


def test_what_was_reported_is_marked_and_stays(tmp_path: Path) -> None:
    """Control tells of each once, also after it was restarted."""
    quarantine(tmp_path)
    quarantine(tmp_path, "v3")

    register.mark_reported(tmp_path, frozenset({("m", "v2", BYTES)}))

    assert {one.version: one.reported for one in register.load(tmp_path).quarantined} == {
        "v2": True,
        "v3": False,
    }


@pytest.mark.parametrize("content", [b"", b"{", b'{"quarantined": 3}', b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_empty_and_mended(tmp_path: Path, content: bytes) -> None:
    """A bad version then crashes two more workers; nothing else depends on it."""
    (tmp_path / register.FILE).write_bytes(content)
    assert register.load(tmp_path) == Register()

    quarantine(tmp_path)

    assert len(register.load(tmp_path).quarantined) == 1


def test_the_history_is_bounded(tmp_path: Path) -> None:
    """A machine that crashes for years fills no disk."""
    for number in range(60):
        register.record(tmp_path, crash(1000.0 * number, f"v{number}"))

    assert len(register.load(tmp_path).crashes) == 50


def test_supervisors_of_several_workers_lose_nothing(tmp_path: Path) -> None:
    """Four processes write at once."""
    code = (
        "import sys; from pathlib import Path\n"
        "from serving.quarantine import register\n"
        "from serving.quarantine.decision import Crash, Suspect\n"
        "for n in range(10):\n"
        "    who = (Suspect('m', f'{sys.argv[2]}-{n}', 'a' * 64),)\n"
        "    one = Crash(at=1e3 * n, worker='w', signal='SIGFPE', suspects=who)\n"
        "    register.record(Path(sys.argv[1]), one)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)])
        for number in range(4)
    ]

    assert [writer.wait(60) for writer in writers] == [0] * 4
    assert len(register.load(tmp_path).crashes) == 40
