"""Room that is kept for an abort: given up on a full disk, made anew when there is room again."""

from errno import EDQUOT, EIO, ENOSPC
from pathlib import Path

import pytest

from serving.control.ballast import Ballast
from serving.errors import ServingError

SIZE = 64 << 10


@pytest.fixture
async def ballast(tmp_path: Path) -> Ballast:
    """One that holds its room."""
    made = Ballast(tmp_path / "ballast", size=SIZE)
    await made.hold()
    return made


class Disk:
    """Takes a write only once the ballast is gone."""

    def __init__(self, ballast: Path, number: int = ENOSPC) -> None:
        self.tries = 0
        self._ballast, self._number = ballast, number

    async def write(self) -> str:
        """Written, or as the disk says."""
        self.tries += 1
        if self._ballast.exists():
            raise ServingError("it cannot be written") from OSError(self._number, "the disk says")
        return "written"


async def test_it_takes_the_room_it_says(ballast: Ballast, tmp_path: Path) -> None:
    """All of it, in bytes that nothing can compress, and once."""
    content = (tmp_path / "ballast").read_bytes()
    await ballast.hold()

    assert len(content) == SIZE
    assert len(set(content)) == 256
    assert (tmp_path / "ballast").read_bytes() == content


@pytest.mark.parametrize("number", [ENOSPC, EDQUOT])
async def test_a_full_disk_gets_its_room(ballast: Ballast, tmp_path: Path, number: int) -> None:
    """And what could not be written is written."""
    disk = Disk(tmp_path / "ballast", number)

    assert await ballast.make_room(disk.write) == "written"
    assert disk.tries == 2


async def test_another_error_of_the_disk_leaves_it_where_it_is(
    ballast: Ballast, tmp_path: Path
) -> None:
    """Room would not help."""
    disk = Disk(tmp_path / "ballast", EIO)

    with pytest.raises(ServingError):
        await ballast.make_room(disk.write)
    assert (disk.tries, (tmp_path / "ballast").exists()) == (1, True)


async def test_without_it_a_full_disk_is_full(tmp_path: Path) -> None:
    """It is tried once, and the reason is the disk's."""
    other = tmp_path / "other"
    other.touch()
    disk = Disk(other)

    with pytest.raises(ServingError):
        await Ballast(tmp_path / "ballast", size=SIZE).make_room(disk.write)
    assert disk.tries == 1


async def test_the_last_room_of_a_disk_is_not_taken_for_it(tmp_path: Path) -> None:
    """Who has a full disk needs what is freed for more than this."""
    await Ballast(tmp_path / "ballast", size=1 << 60).hold()

    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    """It does without."""
    await Ballast(tmp_path / "gone" / "ballast", size=SIZE).hold()
