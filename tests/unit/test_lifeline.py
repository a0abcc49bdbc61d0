import os
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest

from serving import lifeline

CHILD = textwrap.dedent(
    """
    import os, signal, sys
    from serving.lifeline import die_with_parent
    die_with_parent(int(sys.argv[1]))
    print(os.getpid(), flush=True)
    signal.pause()
    """
)
PARENT = textwrap.dedent(
    """
    import os, signal, subprocess, sys
    subprocess.Popen([*sys.argv[1:], str(os.getpid()), *{rest}])
    signal.pause()
    """
)


def gone_when_parent_is_killed(parent_source: str, *command: str) -> None:
    """Start parent and child, kill the parent, and wait for the child to be gone."""
    with subprocess.Popen(
        [sys.executable, "-c", parent_source, *command], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            parent.send_signal(signal.SIGKILL)
            child.wait(20)
        finally:
            if child.is_running():
                child.kill()


def test_a_child_is_gone_after_its_parent_was_killed() -> None:
    """SIGKILL runs no clean-up in the parent; the kernel still ends the child."""
    gone_when_parent_is_killed(PARENT.format(rest=[]), sys.executable, "-c", CHILD)


def test_a_launched_program_that_knows_nothing_of_us_is_gone_too() -> None:
    """The tie survives exec, so the store's server dies with the engine."""
    shell = ["sh", "-c", "echo $$; exec sleep 1000"]
    launcher = (sys.executable, "-I", "-S", str(lifeline.__file__))

    gone_when_parent_is_killed(PARENT.format(rest=shell), *launcher)


def test_a_child_whose_parent_is_already_gone_ends_itself() -> None:
    """If the pid handed down is not the parent's, the signal would never come."""
    foreign = str(os.getppid())

    ended = subprocess.run([sys.executable, "-c", CHILD, foreign], timeout=60, check=False)

    assert ended.returncode == 1


def test_parent_gone_ends_a_program_that_does_not_catch_it() -> None:
    """It is a SystemExit, so no traceback is printed for an ordinary end."""
    with pytest.raises(SystemExit) as ended:
        raise lifeline.ParentGone(1)

    assert ended.value.code == 1
