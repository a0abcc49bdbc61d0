"""`sluice roll` without a gateway; what it does to one is in tests/fault/test_rolling.py."""

import socket
import subprocess
import sys

import pytest

from serving.cli.roll import progress_line, roll_failure
from serving.control.fleet.rolls import RollStatus

SLUICE = (sys.executable, "-c", "from serving.cli import main; main()")


def sluice(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with nobody at the keyboard."""
    return subprocess.run(
        [*SLUICE, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_nobody_can_be_asked_without_a_terminal() -> None:
    """Wrong usage, and the way out is named."""
    done = sluice("roll")

    assert done.returncode == 2
    assert "give --yes" in done.stderr


def test_no_gateway_is_exit_code_3() -> None:
    """As with every command that needs one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        done = sluice("roll", "--yes", "--admin", address)

    assert done.returncode == 3
    assert "does not answer" in done.stderr


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (RollStatus(rolled=1, workers=3, done=False), "1 of 3 workers are new"),
        (
            RollStatus(rolled=2, workers=2, control=True, done=False),
            "2 of 2 workers are new, control follows",
        ),
    ],
)
def test_progress_is_a_line(status: RollStatus, line: str) -> None:
    """For `roll`, `apply` and `status` alike."""
    assert progress_line(status) == line


def test_a_failure_says_why_and_what_next() -> None:
    """The reason is the engine's."""
    error = roll_failure(RollStatus(failed="worker-2 was not ready after 60 s"))

    assert "worker-2 was not ready" in error.message
    assert "`sluice roll`" in error.hint
