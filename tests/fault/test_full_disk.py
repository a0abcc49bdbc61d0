"""An abort on a disk that is really full: a file system of one megabyte."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import disk_kit
import pytest
from rollout_kit import Home, breach

from serving.errors import ServingError

LONG = "odd " * 2000
"""More than the last page of a file may have left on a disk that is full."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte."""
    with disk_kit.small_disk(tmp_path / "disk") as place:
        yield place


def fill(disk: Path) -> Path:
    """Write until the disk takes not one byte more."""
    filler = disk / "filler"
    dd = ["dd", "if=/dev/zero", f"of={filler}", "bs=1k"]
    subprocess.run(dd, check=False, capture_output=True)
    with pytest.raises(OSError, match="No space left"):
        (disk / "probe").write_bytes(b"x" * 4096)
    (disk / "probe").unlink(missing_ok=True)
    return filler


async def baking(folder: Path) -> Home:
    """A rollout whose canary has 5 % of the traffic."""
    home = Home(folder)
    home.see()
    await home.start()
    await home.look()
    await home.bake()
    assert home.state.weight == 5.0
    return home


async def test_a_breach_on_a_full_disk_takes_traffic_back(small_disk: Path) -> None:
    """Written down, published, and still so after a restart with room."""
    home = await baking(small_disk)
    filler = fill(small_disk)
    home.see(breach())
    await home.look()

    assert home.state.phase == "aborting"
    assert home.put is not None
    assert home.put.weight == 0.0
    filler.unlink()
    again = await home.restart()
    assert again.state.phase in ("aborting", "aborted")
    assert again.put is not None
    assert again.put.weight == 0.0


async def test_a_person_can_abort_on_a_full_disk_and_nothing_else(small_disk: Path) -> None:
    """A pause holds traffic where it is; it can wait for room."""
    home = await baking(small_disk)
    fill(small_disk)
    with pytest.raises(ServingError, match="cannot be written"):
        await home.verbs.act("demo", "pause", who="ann", reason=LONG)
    standing = await home.verbs.act("demo", "abort", who="ann", reason=LONG)

    assert standing.phase == "aborting"
    assert home.put is not None
    assert home.put.weight == 0.0


async def test_the_room_is_kept_again_once_there_is_some(small_disk: Path) -> None:
    """For the next abort."""
    home = await baking(small_disk)
    filler = fill(small_disk)
    await home.verbs.act("demo", "abort", who="ann", reason=LONG)
    assert not (small_disk / "ballast").exists()
    filler.unlink()
    home.clock.advance(10)
    await home.look()

    assert (small_disk / "ballast").exists()
