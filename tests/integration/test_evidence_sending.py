"""Evidence on its way: a real store that goes away, comes back empty, and workers that die."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from evidence_kit import RolloutKit, cells
from store_kit import ValkeyServer

from serving.errors import InferenceFailed
from serving.rollout.wire import Batch, Unfolded, decode_unfolded, evidence_key, folded_key
from serving.worker.evidence.reporter import Evidence

BOUND = 30.0
CHILD = """
import sys
from pathlib import Path
from serving.worker.evidence.in_flight import InFlight, Owner, Word
owner = Owner(worker="n/w", incarnation="n/dead", model="m", rollout=sys.argv[2],
              signals=["errors", "slow"], step=2)
flight = InFlight(Path(sys.argv[1]), owner, 8)
for place, arm, keyed in ((7 << 50, 0, True), (8 << 50, 1, True), (0, 1, False)):
    slot = flight.free.pop()
    flight.words[slot] = place
    flight.words[slot + 1] = flight.code(0.5, arm, keyed=keyed)
noted, number, sent, standing = map(int, sys.argv[3:7])
flight.words[Word.NOTED] = noted
flight.words[Word.NUMBER] = number
flight.words[Word.SENT] = sent
flight.words[Word.STANDING] = standing
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A store of our own."""
    server = ValkeyServer(tmp_path / "store").start()
    yield server
    server.kill()


class Site:
    """A pipeline whose evidence goes to a store, and control's end of it."""

    def __init__(self, kit: RolloutKit, store: ValkeyServer, folder: Path) -> None:
        self.kit = kit
        self.store = store
        self.folder = folder / "run" / "evidence"
        self.evidence = Evidence(
            store=store.url,
            data=folder,
            worker="worker-0-1",
            slots=64,
            metrics=kit.metrics,
            clock=kit.clock,
            born=255,
        )
        self.evidence.follow(kit.pipeline.table)

    def standing(self) -> dict[str, Unfolded]:
        """What stands in the store, by incarnation."""
        with self.store.client() as client:
            found = client.hgetall(evidence_key("m-r1"))
        return {name.decode(): decode_unfolded(body) for name, body in found.items()}

    def mine(self) -> Unfolded | None:
        """What this worker has written."""
        return next(
            (one for one in self.standing().values() if "dead" not in one.incarnation), None
        )

    def confirm(self, incarnation: str, number: int) -> None:
        """Do as control does."""
        with self.store.client() as client:
            client.hset(folded_key("m-r1"), incarnation, number)

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for something that a sender will do; its own time goes on meanwhile."""
        async with asyncio.timeout(BOUND):
            while not (found := condition()):
                self.kit.clock.advance(0.3)
                await asyncio.sleep(0.01)
            return found

    def lost(self, reason: str) -> float:
        """Requests that were counted as lost."""
        return self.kit.counted.get(("sluice_evidence_lost_total", ("m", reason)), [0.0])[0]


@pytest.fixture
async def site(tmp_path: Path, store: ValkeyServer) -> AsyncIterator[Site]:
    """A worker's evidence, being sent."""
    kit = RolloutKit(tmp_path)
    await kit.serve()
    one = Site(kit, store, tmp_path / "data")
    task = asyncio.create_task(one.evidence.run())
    yield one
    task.cancel()
    await asyncio.wait([task])


def exposed(batches: list[Batch]) -> list[int]:
    """Cells of all batches, of both arms."""
    return [
        cell
        for batch in batches
        for share in batch.shares
        for arm in (share.exposed.canary, share.exposed.production)
        for cell in cells(arm)
    ]


async def test_what_is_counted_stands_in_the_store_until_it_is_confirmed(site: Site) -> None:
    """Then it goes, and what came since stays."""
    await site.kit.infer(key=1)
    first = await site.until(site.mine)
    await site.kit.infer(key=2)
    both = await site.until(lambda: (one := site.mine()) and len(one.batches) == 2 and one)
    assert [batch.number for batch in both.batches] == [1, 2]
    assert exposed(both.batches) == [site.kit.cell(1), site.kit.cell(2)]

    site.confirm(first.incarnation, 1)
    await site.kit.infer(key=3)
    rest = await site.until(lambda: (one := site.mine()) and one.batches[0].number == 2 and one)
    assert exposed(rest.batches)[0] == site.kit.cell(2)


async def test_an_empty_store_gets_everything_again(site: Site) -> None:
    """A store that lost its memory hears all that control has not confirmed, under its numbers."""
    await site.kit.infer(key=1)
    await site.until(site.mine)
    site.store.kill()
    await site.kit.infer(key=2)
    site.store.start()

    told = await site.until(lambda: (one := site.mine()) and len(exposed(one.batches)) == 2 and one)
    assert exposed(told.batches) == [site.kit.cell(1), site.kit.cell(2)]
    numbers = [batch.number for batch in told.batches]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_requests_do_not_notice_that_the_store_is_away(site: Site) -> None:
    """Evidence waits, and the answers do not."""
    site.store.freeze()
    for key in range(50):
        await site.kit.infer(key=key)
    site.store.thaw()

    told = await site.until(
        lambda: (one := site.mine()) and len(exposed(one.batches)) == 50 and one
    )
    assert len(set(exposed(told.batches))) == 50


async def test_a_hard_stop_does_not_wait_for_its_turn(site: Site) -> None:
    """Control hears of it at once: the clock of the sender stands still here."""
    await site.kit.infer(key=site.kit.keys_of("v1", 1)[0])
    await site.until(site.mine)
    site.kit.upstreams["v2"].failure = InferenceFailed("no idea")
    for key in site.kit.keys_of("v2", 17):
        with pytest.raises(InferenceFailed):
            await site.kit.infer(key=key)
    async with asyncio.timeout(BOUND):
        while not any(batch.tripped for batch in site.mine().batches):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)

    assert site.kit.counted["sluice_hard_stops_total", ("m", "v2")] == [1.0]


async def test_the_last_words_are_said_and_the_file_goes(
    tmp_path: Path, store: ValkeyServer
) -> None:
    """A worker that leaves in order is not spoken for."""
    kit = RolloutKit(tmp_path)
    await kit.serve()
    site = Site(kit, store, tmp_path / "data")
    await kit.infer(key=1)
    assert len(list(site.folder.iterdir())) == 1
    await site.evidence.finish()

    told = site.mine()
    assert told is not None
    assert told.ended
    assert exposed(told.batches) == [kit.cell(1)]
    assert list(site.folder.iterdir()) == []


async def test_what_the_store_does_not_take_at_the_end_is_told_by_a_sibling(
    tmp_path: Path, store: ValkeyServer
) -> None:
    """The file stays; how much is lost is said by whoever finds it."""
    kit = RolloutKit(tmp_path)
    await kit.serve()
    site = Site(kit, store, tmp_path / "data")
    await kit.infer(key=1)
    store.kill()
    await site.evidence.finish()

    assert len(list(site.folder.iterdir())) == 1


async def test_a_rollout_that_is_over_is_not_counted(site: Site) -> None:
    """Its file goes with it, and requests leave nothing."""
    site.kit.rolled = msgspec.structs.replace(site.kit.rolled, id="m-r2", counting=False)
    snapshot = site.kit.snapshot(2)
    new = await site.kit.loader.build(snapshot, site.kit.pipeline.table)
    site.evidence.follow(new)

    assert new.models["m"].watch is None
    assert list(site.folder.iterdir()) == []


# --- speaking for the dead ------------------------------------------------------------------


def die(site: Site, *numbers: int, rollout: str = "m-r1") -> Path:
    """A worker that is killed with a canary's request and two of production's in flight."""
    path = site.folder / "dead.flight"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), rollout, *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return path


async def test_a_dead_worker_s_requests_are_errors_of_their_arms(site: Site) -> None:
    """Numbered after what it had sent; what it had not is told as lost; nothing will follow."""
    site.store.client().hset(
        evidence_key("m-r1"),
        "n/dead",
        msgspec.msgpack.encode(Unfolded("n/w", "n/dead", [Batch(4, 1.0, 2, [], {}, [[], []])])),
    )
    die(site, 90, 4, 70, 60)
    told = await site.until(lambda: (one := site.standing().get("n/dead")) and one.ended and one)

    assert [batch.number for batch in told.batches] == [4, 5]
    last = told.batches[-1]
    [share] = last.shares
    assert (share.rho, share.requests, last.step) == (0.5, [1, 2], 2)
    for signal_ in ("errors", "slow"):
        arms = share.events[signal_]
        assert (len(arms.canary.cells), arms.canary.unkeyed) == (4, 0)
        assert (len(arms.production.cells), arms.production.unkeyed) == (4, 1)
    assert last.lost == {"killed": 20}
    assert site.lost("killed") == 20


async def test_a_batch_that_never_arrived_is_lost_too(site: Site) -> None:
    """The store never had the last one that was sent."""
    die(site, 90, 4, 70, 60)
    told = await site.until(lambda: site.standing().get("n/dead"))

    assert [batch.number for batch in told.batches] == [5]
    assert told.batches[0].lost == {"killed": 30}


async def test_the_file_stays_until_control_has_heard(site: Site) -> None:
    """A store that loses the last words is told them again, under the same number."""
    path = die(site, 0, 4, 0, 0)
    first = await site.until(lambda: site.standing().get("n/dead"))
    site.store.client().flushall()
    again = await site.until(lambda: site.standing().get("n/dead"))
    assert path.exists()
    assert [batch.number for batch in again.batches] == [5]
    assert again.batches[0].shares == first.batches[0].shares

    site.confirm("n/dead", 5)
    await site.until(lambda: not path.exists())
    assert site.lost("killed") == 0


async def test_nobody_speaks_for_a_rollout_that_is_over(site: Site) -> None:
    """Its file is left for an hour and then goes."""
    path = die(site, 0, 4, 0, 0, rollout="m-r0")
    await site.kit.infer(key=1)
    await site.until(site.mine)
    assert path.exists()

    os.utime(path, (0, 0))
    await site.until(lambda: not path.exists())
    assert site.store.client().exists(evidence_key("m-r0")) == 0
