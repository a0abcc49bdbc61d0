"""Files of requests in flight, and processes that die with them."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serving.worker.evidence.in_flight import Entry, InFlight, Owner, Word, find

OWNER = Owner(worker="n/w", incarnation="n/w:1", model="m", rollout="m-r1", signals=["errors"])
CHILD = """
import sys
from pathlib import Path
from serving.worker.evidence.in_flight import InFlight, Owner, Word
flight = InFlight(Path(sys.argv[1]), Owner(worker="n/w", incarnation="n/w:1", model="m",
                  rollout="m-r1", signals=["errors"]), 8)
for place, rho, arm, keyed in ((7, 0.05, 0, True), (1 << 63, 0.25, 1, True), (0, 0.25, 0, False)):
    slot = flight.free.pop()
    flight.words[slot] = place
    flight.words[slot + 1] = flight.code(rho, arm, keyed=keyed)
gone = flight.free.pop()
flight.words[gone] = 9
flight.words[gone + 1] = flight.code(0.05, 0, keyed=True)
flight.words[gone + 1] = 0
flight.words[Word.NOTED] = 41
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child(tmp_path: Path) -> "subprocess.Popen[str]":
    """A process with three requests in flight, and a fourth that has ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "a.flight")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def _open_below(folder: Path) -> list[str]:
    """The files in a folder, deleted ones too, that this process holds open."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them is closed by now
            targets.append(str(descriptor.readlink()))
    return [target for target in targets if target.startswith(f"{folder}/")]


def kill(process: "subprocess.Popen[str]") -> None:
    """As a worker may die."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_process_leaves_what_it_was_at(
    child: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    """Place, probability, arm and numbers are those of the moment it died."""
    kill(child)
    found = find(tmp_path / "a.flight")
    assert found is not None

    assert found.owner == OWNER
    assert found.word(Word.NOTED) == 41
    assert sorted(found.entries(), key=lambda one: (one.rho, one.arm)) == [
        Entry(0.05, 0, 7),
        Entry(0.25, 0, None),
        Entry(0.25, 1, 1 << 63),
    ]
    found.close()


def test_a_living_process_is_not_spoken_for(child: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """Its file is held as long as it lives."""
    assert find(tmp_path / "a.flight") is None

    kill(child)
    found = find(tmp_path / "a.flight")
    assert found is not None
    found.close()


def test_two_finders_do_not_both_get_it(child: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """Whoever comes second finds it held, and later gone."""
    kill(child)
    path = tmp_path / "a.flight"
    first = find(path)
    assert first is not None

    assert find(path) is None
    first.remove()
    first.close()
    assert find(path) is None


def test_what_was_settled_is_known_to_the_next_finder(
    child: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    """The number under which somebody began to speak survives him."""
    kill(child)
    first = find(tmp_path / "a.flight")
    assert first is not None
    first.speak(12)
    first.close()

    second = find(tmp_path / "a.flight")
    assert second is not None
    assert second.word(Word.SPOKEN) == 12
    second.close()


@pytest.mark.parametrize("content", [b"", b"x" * 20_000, bytes(20_000)])
def test_a_file_that_is_not_whole_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """Its maker may be at it this moment."""
    path = tmp_path / "a.flight"
    path.write_bytes(content)

    assert find(path) is None
    assert path.exists()


def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    """Nobody has to speak for a worker that has said everything."""
    flight = InFlight(tmp_path / "a.flight", OWNER, 8)
    assert _open_below(tmp_path)
    flight.close()
    del flight  # its memory is mapped until then: requests may still end, and write there

    assert list(tmp_path.iterdir()) == []
    assert _open_below(tmp_path) == []
