"""A real disk of one megabyte, for tests of what a full one does."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount it at `place`; skip where that is not allowed, except in CI."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        if os.environ.get("CI"):
            pytest.fail(f"no tmpfs can be mounted: {made.stderr.decode()}")
        pytest.skip("mounting a tmpfs takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
