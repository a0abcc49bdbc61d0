"""Control's word to other nodes and theirs to control, through a store in memory."""

import logging
from pathlib import Path

import pytest
from msgspec.structs import replace

from serving.clock import ManualClock
from serving.config.applied import Applied, Failure, Orders, read_failure
from serving.config.directions import Directions, NodeReport, Taken, read_taken
from serving.config.schema import GatewayConfig, Limits
from serving.control.fleet.director import Director
from serving.control.fleet.rolls import Rolls
from serving.control.stores.store import MemoryStore
from serving.errors import StoreUnavailable
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect
from serving.quarantine.history import Register

ENGINE = "now@here"
LOG = logging.getLogger("test")


class Kit:
    """Control's part of it on one data directory."""

    def __init__(self, data: Path, store: MemoryStore | None = None) -> None:
        (data / "run").mkdir(parents=True, exist_ok=True)
        self.data = data
        self.clock = ManualClock()
        self.store = store if store is not None else MemoryStore()
        self.rolls = Rolls(data, ENGINE, 0, LOG)
        self.director = Director(self.store, data, self.rolls, clock=self.clock, log=LOG)

    async def told(self) -> Directions:
        """What nodes read after control has looked once."""
        await self.director.hear()
        await self.director.tell()
        directions = await self.store.directions(ENGINE)
        assert directions is not None
        return directions

    def report(self, **more: object) -> None:
        """A node's report."""
        said = NodeReport(node="far", engine=ENGINE, at=self.clock.wall())
        self.store.node_reports["far"] = replace(said, **more)


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    """A fresh one."""
    return Kit(tmp_path / "data")


def crash(at: float, node: str) -> Crash:
    """A worker's death of one version."""
    suspects = (Suspect("m", "v2", "b" * 64),)
    return Crash(at=at, worker="worker-0", signal="SIGFPE", suspects=suspects, node=node)


def applied(inputs: int) -> Applied:
    """Settings."""
    return Applied(gateway=GatewayConfig(limits=Limits(max_inputs=inputs)), directory="/c")


async def test_orders_and_their_settings_are_told(kit: Kit) -> None:
    """What is applied reaches the store with the next look."""
    first = await kit.told()
    kit.rolls.follow(applied(1), applied(2), kit.rolls.prepare(applied(2), 0))

    second = await kit.told()

    assert (first.revision, first.orders) == (1, Orders(engine=ENGINE))
    assert (second.revision, second.orders) == (2, kit.rolls.orders)
    assert second.settings == {1: applied(2)}
    assert read_taken(kit.data) == Taken(engine=ENGINE, revision=2, own=True)


async def test_what_is_unchanged_is_not_told_again(kit: Kit) -> None:
    """Neither now nor after control was restarted."""
    await kit.told()
    kit.clock.advance(60.0)
    same = await kit.told()
    restarted = await Kit(kit.data, kit.store).told()

    assert same.revision == restarted.revision == 1


async def test_a_store_that_lost_it_is_filled_again(kit: Kit) -> None:
    """With a higher revision: nodes have taken the one before."""
    await kit.told()
    kit.store.clear()
    kit.clock.advance(2.0)

    assert (await kit.told()).revision == 2


async def test_a_store_that_is_away_changes_nothing(kit: Kit) -> None:
    """It is told when it is back."""
    kit.store.available = False
    with pytest.raises(StoreUnavailable):
        await kit.director.tell()
    kit.store.available = True

    assert (await kit.told()).orders == kit.rolls.orders


async def test_a_crash_on_another_node_counts(kit: Kit) -> None:
    """One here and one there are two; every node hears of it."""
    register.record(kit.data, crash(1.0, "near"))
    kit.report(known=Register(crashes=[crash(2.0, "far")]))

    told = await kit.told()

    assert [one.version for one in told.known.quarantined] == ["v2"]
    assert [one.version for one in register.load(kit.data).quarantined] == ["v2"]


async def test_a_lift_is_told_and_late_words_do_not_undo_it(kit: Kit) -> None:
    """The node goes on saying what it knew until it has heard."""
    there = Register(crashes=[crash(1.0, "far"), crash(2.0, "far")])
    kit.report(known=there)
    await kit.told()
    register.lift(kit.data, "m", "v2")
    kit.report(known=there, revision=1)

    told = await kit.told()

    assert told.known.quarantined == []
    assert [one.since for one in told.known.lifted] == [2.0]


async def test_a_node_that_cannot_follow_stops_all(kit: Kit) -> None:
    """Its failure is control's, and goes to the other nodes."""
    kit.rolls.roll(applied(1), 0)
    serial = kit.rolls.orders.serial
    kit.report(failure=Failure(serial=serial, reason="broken"))

    told = await kit.told()

    assert told.failure == read_failure(kit.data) == Failure(serial=serial, reason="far: broken")


async def test_control_that_lost_its_disk_counts_on_from_what_nodes_follow(kit: Kit) -> None:
    """They ignore a revision that is not higher, and generations they have are not used again."""
    kit.report(revision=40, serial=6, newest=3)

    told = await kit.told()

    assert told.revision == 41
    assert kit.rolls.roll(applied(1), 0) == 4


async def test_what_nodes_of_another_start_order_does_not_count(kit: Kit) -> None:
    """What crashed there does: a start does not mend a version."""
    known = Register(crashes=[crash(1.0, "far"), crash(2.0, "far")])
    kit.report(engine="before", revision=40, serial=6, newest=3, known=known)

    told = await kit.told()

    assert (told.revision, told.orders.serial) == (1, 0)
    assert [one.version for one in told.known.quarantined] == ["v2"]


async def test_a_node_that_is_silent_is_forgotten(kit: Kit) -> None:
    """It has gone; if not, it will say so."""
    kit.report()
    await kit.told()
    kit.clock.advance(61.0)
    await kit.told()

    assert kit.store.node_reports == {}
