"""Every target gets every row at least once, whatever ends the process that ships."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import log_files_kit as kit
import pytest
import shipping_kit

from serving.recording.erasures import erase
from serving.recording.layout import LogFolder
from serving.recording.parquet import merge
from serving.recording.shipping.address import target_of
from serving.recording.shipping.cursor import Cursor
from serving.recording.shipping.ship import Shipped, ship


@pytest.fixture(params=["s3", "kafka", "delta"])
def target(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Each kind of target, with what it needs."""
    with shipping_kit.target(request.param, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path) -> LogFolder:
    """Eight rows in four files of two hours."""
    folder = LogFolder(tmp_path / "log")
    for number in range(4):
        at = kit.EPOCH + (number // 2) * kit.HOUR
        kit.parquet(
            folder.root, [kit.row(2 * number, at), kit.row(2 * number + 1, at)], number=number
        )
    return folder


def send(log: LogFolder, address: str) -> Shipped:
    """What `sluice log ship` does once."""
    to = target_of(address, {})
    with Cursor(log, address) as cursor:
        done = ship(log, to, cursor)
    to.close()
    return done


def test_everything_arrives_and_nothing_twice_when_all_goes_well(
    log: LogFolder, target: Any
) -> None:
    """A second look sends nothing; a third only what is new."""
    first = send(log, target.address)
    again = send(log, target.address)
    kit.parquet(log.root, [kit.row(8)], number=9)
    third = send(log, target.address)

    assert (first.files, first.rows) == (4, 8)
    assert (again.files, again.rows) == (0, 0)
    assert (third.files, third.rows) == (1, 1)
    assert target.people() == list(range(9))


def test_merging_sends_nothing_again(log: LogFolder, target: Any) -> None:
    """The rows of a merged file are those of the files it was made of."""
    send(log, target.address)
    merge(log, sorted(log.parquet.glob("*/hour=2025-10-09T09/*.parquet")))
    done = send(log, target.address)

    assert done.files == 0
    assert target.people() == list(range(8))


def test_a_file_merged_before_it_was_sent_arrives(log: LogFolder, target: Any) -> None:
    """Nothing is missing when the shipper was away."""
    merge(log, sorted(log.parquet.glob("*/hour=2025-10-09T09/*.parquet")))
    send(log, target.address)

    assert target.people() == list(range(8))


def test_killed_between_any_two_files_nothing_is_missing(log: LogFolder, target: Any) -> None:
    """`kill -9` when a target has confirmed a file and the cursor does not say so yet."""
    code = (
        "import os, pathlib, signal, sys\n"
        "from serving.recording.layout import LogFolder\n"
        "from serving.recording.shipping import cursor\n"
        "from serving.recording.shipping.ship import ship\n"
        "from serving.recording.shipping.address import target_of\n"
        "left = int(sys.argv[3])\n"
        "class Killed(cursor.Cursor):\n"
        "    def note(self, file, state):\n"
        "        global left\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        super().note(file, state)\n"
        "log = LogFolder(pathlib.Path(sys.argv[1]))\n"
        "with Killed(log, sys.argv[2]) as held:\n"
        "    ship(log, target_of(sys.argv[2], {}), held)\n"
    )
    for after in (0, 1):
        killed = subprocess.run(
            [sys.executable, "-c", code, str(log.root), target.address, str(after)],
            check=False,
            env=os.environ,
        )
        assert killed.returncode == -signal.SIGKILL
    done = send(log, target.address)

    assert set(target.people()) == set(range(8))
    assert done.files == 3  # one was noted; that which was confirmed and not noted came again


def test_an_erased_subject_is_replaced_where_a_target_can(log: LogFolder, target: Any) -> None:
    """S3 and Delta Lake hold the file as it is now; Kafka keeps what it has been told."""
    send(log, target.address)
    erase(log, {"person_id": "3"})
    done = send(log, target.address)

    assert (done.files, done.rows) == (1, 1)
    if not target.address.startswith("kafka"):
        assert target.people() == [0, 1, 2, 4, 5, 6, 7]


def test_the_command_ships_and_says_how_much(log: LogFolder, target: Any) -> None:
    """From the command line, with nothing but the log."""
    words = ["log", "ship", target.address, "--log", str(log.root), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from serving.cli import main; main()", *words],
        capture_output=True, text=True, timeout=90, check=False, env=os.environ,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert '"rows": 8' in done.stdout
    assert target.people() == list(range(8))
