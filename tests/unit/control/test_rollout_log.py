from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from serving.control.rollouts.log import EVENTS_FILE, RolloutLog, read_events
from serving.control.stores.store import MemoryStore
from serving.errors import Conflict
from serving.rollout.state import Arms, Event, IllegalEvent, Kind

KINDS: Sequence[Kind] = ("started", "stepped", "paused", "resumed", "aborting", "aborted")


def event(revision: int, kind: Kind | None = None, reason: str = "") -> Event:
    """The usual event of a revision."""
    return Event(
        revision=revision,
        at=float(revision),
        kind=kind or KINDS[revision - 1],
        who="controller",
        reason=reason,
        arms=Arms(canary="v2", production="v1") if revision == 1 else None,
    )


class Home:
    """A log on a disk, and a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.log = RolloutLog(folder, self.store)
        self._logs = [self.log]

    def close(self) -> None:
        """Let go of the disk."""
        for log in self._logs:
            log.close()

    async def write(self, *revisions: int) -> None:
        """Write the usual events of demo-r1."""
        for revision in revisions:
            if revision == 1:
                await self.log.begin("demo-r1", "demo", event(1))
            else:
                await self.log.append("demo-r1", event(revision))

    async def again(self) -> RolloutLog:
        """What another process makes of the same disk and store."""
        for log in self._logs:
            log.close()
        self._logs.append(RolloutLog(self.folder, self.store))
        await self._logs[-1].load()
        await self._logs[-1].reconcile()
        return self._logs[-1]

    @property
    def file(self) -> Path:
        """Where the events are."""
        return self.folder / "demo" / "demo-r1" / EVENTS_FILE


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """An empty one."""
    made = Home(tmp_path)
    yield made
    made.close()


def revisions(log: RolloutLog) -> list[int]:
    """Of demo's last rollout."""
    told = log.last("demo")
    return [one.revision for one in told.events] if told is not None else []


async def test_an_event_is_on_the_disk_and_in_the_store(home: Home) -> None:
    """In this order; both say the same."""
    await home.write(1, 2, 3)

    assert read_events(home.file) == [event(1), event(2), event(3)]
    stored = await home.store.rollout_events("demo-r1")
    assert [msgspec.json.decode(one, type=Event) for one in stored.values()] == read_events(
        home.file
    )
    assert await home.store.rollouts() == {"demo-r1": 3}


async def test_what_cannot_follow_is_not_written(home: Home) -> None:
    """Nowhere."""
    await home.write(1, 2)
    with pytest.raises(IllegalEvent):
        await home.log.append("demo-r1", event(3, "approved"))
    with pytest.raises(IllegalEvent):
        await home.log.append("demo-r1", event(4, "paused"))

    assert len(read_events(home.file)) == 2
    assert revisions(home.log) == [1, 2]


async def test_without_the_store_events_wait_for_it(home: Home) -> None:
    """They have happened all the same, and it gets them when it is back."""
    await home.write(1)
    home.store.available = False
    await home.write(2, 3)
    home.store.available = True
    assert await home.store.rollouts() == {"demo-r1": 1}
    await home.log.reconcile()

    assert await home.store.rollouts() == {"demo-r1": 3}


async def test_an_empty_store_gets_everything_and_an_empty_disk_too(home: Home) -> None:
    """Either has it from the other; with both there is nothing to do."""
    await home.write(1, 2, 3)
    home.store.clear()
    assert revisions(await home.again()) == [1, 2, 3]
    assert await home.store.rollouts() == {"demo-r1": 3}
    content = home.file.read_bytes()
    home.file.unlink()
    assert revisions(await home.again()) == [1, 2, 3]

    assert home.file.read_bytes() == content


async def test_a_store_that_is_ahead_is_followed(home: Home) -> None:
    """The disk is that of yesterday's backup."""
    await home.write(1, 2, 3)
    home.file.write_bytes(b"".join(home.file.read_bytes().splitlines(keepends=True)[:1]))

    assert revisions(await home.again()) == [1, 2, 3]
    assert len(read_events(home.file)) == 3


@pytest.mark.parametrize("cut", range(1, 120, 7))
async def test_a_torn_line_never_happened(home: Home, cut: int) -> None:
    """Wherever a crash cut it off; the next event takes its revision."""
    home.store.available = False
    await home.write(1, 2, 3)
    whole = home.file.read_bytes()
    lines = whole.splitlines(keepends=True)
    home.file.write_bytes(b"".join(lines[:2]) + lines[2][: -1 - cut])
    home.log.close()
    log = RolloutLog(home.folder, home.store)
    await log.load()
    assert revisions(log) == [1, 2]
    await log.append("demo-r1", event(3, reason="again"))

    assert [one.reason for one in read_events(home.file)] == ["", "", "again"]


async def test_of_two_lines_with_one_revision_the_later_counts(home: Home) -> None:
    """The disk had said that it did not take the earlier."""
    await home.write(1, 2)
    with home.file.open("ab") as file:
        for reason in ("refused", "written"):
            file.write(msgspec.json.encode(event(3, reason=reason)) + b"\n")

    home.log.close()
    log = RolloutLog(home.folder, home.store)
    await log.load()
    told = log.last("demo")
    assert told is not None
    assert (told.state.revision, told.state.reason) == (3, "written")


async def test_events_after_a_gap_do_not_count(home: Home) -> None:
    """Somebody has taken a line out."""
    await home.write(1, 2, 3, 4)
    lines = home.file.read_bytes().splitlines(keepends=True)
    home.file.write_bytes(lines[0] + lines[1] + lines[3])
    home.store.clear()

    assert revisions(await home.again()) == [1, 2]


async def test_whoever_is_behind_another_control_takes_over_its_events(
    home: Home, tmp_path: Path
) -> None:
    """It is told so, and has written nothing."""
    await home.write(1, 2)
    other = RolloutLog(tmp_path / "other", home.store)
    await other.load()
    await other.reconcile()
    await other.append("demo-r1", event(3))
    with pytest.raises(Conflict):
        await home.log.append("demo-r1", event(3, "aborting"))

    told = home.log.last("demo")
    assert told is not None
    assert told.state.phase == "paused"
    assert [one.kind for one in read_events(home.file)] == ["started", "stepped", "paused"]


async def test_of_two_at_the_same_moment_the_store_decides(home: Home, tmp_path: Path) -> None:
    """Both have written to their own disks: what came to the store first has happened."""
    await home.write(1, 2)
    first = msgspec.json.encode(event(3, reason="first"))

    class Late(MemoryStore):
        """A store into which the other control's event comes just before ours."""

        async def add_rollout_events(self, rollout: str, events: object) -> bool:
            await home.store.add_rollout_events(rollout, {3: first})
            return await home.store.add_rollout_events(rollout, events)  # type: ignore[arg-type]

        async def rollouts(self) -> dict[str, int]:
            return await home.store.rollouts()

        async def rollout_events(self, rollout: str) -> dict[int, bytes]:
            return await home.store.rollout_events(rollout)

    late = RolloutLog(tmp_path / "late", Late())
    await late.load()
    await late.reconcile()
    with pytest.raises(Conflict):
        await late.append("demo-r1", event(3, "aborting"))

    told = late.last("demo")
    assert told is not None
    assert (told.state.phase, told.state.reason) == ("paused", "first")
    late.close()
    again = RolloutLog(tmp_path / "late", MemoryStore())
    await again.load()
    assert again.last("demo") == told


async def test_rollouts_of_a_model_are_in_order_of_their_numbers(home: Home) -> None:
    """r10 comes after r9."""
    for number in (1, 2, 9, 10):
        await home.log.begin(f"demo-r{number}", "demo", event(1))
        await home.log.begin(f"other-r{number}", "other", event(1))

    again = await home.again()
    assert [told.state.id for told in again.of("demo")] == [f"demo-r{n}" for n in (1, 2, 9, 10)]
    assert again.models == ["demo", "other"]


async def test_what_is_not_ours_in_the_store_is_left_alone(home: Home) -> None:
    """Neither names that lead elsewhere nor bytes that are no events."""
    for name in ("../../etc-r1", "demo", ".hidden-r1"):
        await home.store.add_rollout_events(name, {1: b"{}"})
    await home.store.add_rollout_events("demo-r1", {1: b"no event"})

    assert (await home.again()).models == []
    assert [path.name for path in home.folder.rglob("*")] == ["lock"]


async def test_of_two_processes_on_one_disk_the_second_waits(home: Home) -> None:
    """Until the first has ended, however it did."""
    await home.log.load()
    second = RolloutLog(home.folder, home.store)
    with pytest.raises(Conflict, match="another control process"):
        await second.load()
    home.log.close()
    await second.load()

    second.close()
