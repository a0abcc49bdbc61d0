"""What a process of the gateway says of its memory while the soak test runs."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROBE = Path(__file__).parents[2] / "loadtests" / "soak_probe"
PROGRAM = """
import sys
print("up", flush=True)
kept = []
for line in sys.stdin:
    kept += [object() for _ in range(int(line))]
    print(len(kept), flush=True)
"""


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A program that keeps as many new objects as it is told, one number a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "sluice"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROBE), "SLUICE_SOAK_PROBE": str(tmp_path)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def keep(keeper: "subprocess.Popen[str]", count: int) -> None:
    """Have so many more objects kept."""
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    keeper.stdin.write(f"{count}\n")
    keeper.stdin.flush()
    keeper.stdout.readline()


def test_every_object_that_is_kept_is_counted(
    keeper: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    """A block each, and resident memory beside them, of the process that was asked."""
    memory = importlib.import_module("soak_memory")
    before = memory.look(tmp_path, keeper.pid)
    keep(keeper, 10_000)
    after = memory.look(tmp_path, keeper.pid)

    assert after.blocks - before.blocks == pytest.approx(10_000, rel=0.02)
    assert after.pid == keeper.pid
    assert after.rss >= before.rss > 0


def test_what_grew_is_found_by_its_line(keeper: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """Traced from a moment on, the line that keeps most is told first."""

    def ask(order: str) -> Any:
        return importlib.import_module("soak_memory").ask(tmp_path, keeper.pid, order)

    assert ask("trace 1") is True
    keep(keeper, 10_000)

    [most] = ask("traced 1")
    assert most.endswith("<string>:6")
    assert ask("trace 0") is False
    assert "function" in ask("types")
    assert ask("no order") == "nothing is known of 'no order'"
