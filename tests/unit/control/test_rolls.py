"""What control orders, and how it judges how far the engine is."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.config.applied import Applied, Failure, Orders, read_orders, write_failure
from serving.config.keys import WorkerReport
from serving.config.schema import GatewayConfig
from serving.config.snapshot_codec import dec_hook
from serving.control.fleet.rolls import Rolls, judge

NOW = 1_000.0


def applied(directory: str = "/c", **sections: Any) -> Applied:
    """Settings."""
    gateway = msgspec.convert(sections, GatewayConfig, dec_hook=dec_hook)
    return Applied(gateway=gateway, directory=directory)


def worker(number: int, generation: int, state: str = "ready", age: float = 0.0) -> WorkerReport:
    """One worker's report."""
    return WorkerReport(
        worker=f"worker-{number}",
        state=state,  # type: ignore[arg-type]
        revision=1,
        reported_at=NOW - age,
        generation=generation,
    )


@pytest.fixture
def rolls(tmp_path: Path) -> Rolls:
    """On a data directory in use."""
    (tmp_path / "run").mkdir()
    return made(tmp_path)


def made(data: Path, engine: str = "now", own: int = 0) -> Rolls:
    """As control makes it when it starts."""
    return Rolls(data, engine, own, logging.getLogger("test"))


def ordered(rolls: Rolls, before: Applied, after: Applied) -> Orders:
    """The orders after an apply."""
    rolls.follow(before, after, rolls.prepare(after, 0))
    return rolls.orders


def test_settings_that_workers_read_replace_them(rolls: Rolls, tmp_path: Path) -> None:
    """Control stays; the engine finds the orders in the file."""
    orders = ordered(rolls, applied(), applied(limits={"max_inputs": 7}))

    assert (orders.workers, orders.control, orders.then_control) == (1, 0, False)
    assert orders.number is None
    assert read_orders(tmp_path) == orders
    assert rolls.applied == applied(limits={"max_inputs": 7})


def test_control_follows_the_workers_where_it_is_concerned(rolls: Rolls) -> None:
    """It is told to end once no worker is behind."""
    ordered(rolls, applied(), applied(logs={"level": "debug"}))
    assert rolls.orders.then_control
    rolls.keep([worker(0, 0), worker(1, 1)], NOW)
    waiting = rolls.orders
    rolls.keep([worker(2, 1), worker(1, 1)], NOW)

    assert waiting.control == 0
    assert (rolls.orders.control, rolls.orders.then_control) == (1, False)
    assert rolls.status([worker(2, 1)], NOW).control


def test_a_number_is_followed_without_replacing_anybody(rolls: Rolls) -> None:
    """Only what was changed is ordered."""
    orders = ordered(rolls, applied(), applied(engine={"workers": 3}))

    assert (orders.number, orders.workers, orders.control) == (3, 0, 0)


def test_a_failed_roll_is_not_tried_again_by_an_unrelated_change(
    rolls: Rolls, tmp_path: Path
) -> None:
    """More workers can be had although new code does not run; its number is not used again."""
    failed = rolls.roll(applied(), 0)
    write_failure(tmp_path, Failure(serial=rolls.orders.serial, reason="broken", kept=0))
    stopped = rolls.status([worker(0, 0)], NOW)
    orders = ordered(rolls, applied(), applied(engine={"workers": 3}))
    again = rolls.roll(applied(), 0)

    assert (stopped.done, stopped.failed) == (False, "broken")
    assert (orders.workers, orders.then_control, orders.number) == (0, False, 3)
    assert again > failed


def test_orders_outlive_control_but_not_the_engine(rolls: Rolls, tmp_path: Path) -> None:
    """A control process that comes back goes on; another engine begins anew."""
    orders = ordered(rolls, applied(), applied(limits={"max_inputs": 7}))

    assert made(tmp_path).orders == orders
    assert made(tmp_path, "another").orders == Orders(engine="another")
    assert made(tmp_path, "another").applied is None


@pytest.mark.parametrize(
    ("reports", "done"),
    [
        ([worker(0, 4), worker(1, 4)], True),
        ([worker(0, 4), worker(1, 3)], False),
        ([worker(0, 4), worker(1, 4), worker(2, 3, "draining")], False),
        ([worker(0, 4), worker(1, 4), worker(2, 4, "draining")], False),
        ([worker(0, 4), worker(1, 4, "loading")], False),
        ([worker(0, 4), worker(1, 4), worker(2, 3, age=60.0)], True),
        ([worker(0, 4)], False),
        ([], False),
    ],
)
def test_done_is_when_all_are_new_and_as_many_as_asked_for(
    reports: list[WorkerReport], done: bool
) -> None:
    """Whoever is silent has gone; whoever drains has not yet."""
    orders = Orders(engine="e", serial=1, workers=4, number=2)

    assert judge(orders, reports, NOW, own=0, failed="").done is done


def test_nothing_ordered_is_done() -> None:
    """A gateway that nobody has changed."""
    assert judge(Orders(engine="e"), [], NOW, own=0, failed="").done


def test_orders_that_could_not_be_written_are_written_later(
    rolls: Rolls, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are journaled already; a full disk only delays them."""
    generation = rolls.prepare(applied(limits={"max_inputs": 7}), 0)
    (tmp_path / "run").rename(tmp_path / "gone")
    rolls.follow(applied(), applied(limits={"max_inputs": 7}), generation)
    (tmp_path / "gone").rename(tmp_path / "run")
    rolls.keep([], NOW)

    assert "cannot be told" in caplog.text
    assert read_orders(tmp_path) == rolls.orders


def test_workers_of_other_nodes_are_waited_for() -> None:
    """They follow the same orders; how many they are is Ray's affair."""
    orders = Orders(engine="e", serial=1, workers=2, number=3)
    here = WorkerReport(worker="worker-0", state="ready", revision=1, reported_at=0.0, generation=2)
    there = msgspec.structs.replace(here, node="another", generation=1)
    rolled = msgspec.structs.replace(there, generation=2)

    assert not judge(orders, [here], 0.0, own=0, failed="").done
    assert not judge(orders, [here, there], 0.0, own=0, failed="").done
    assert judge(orders, [here, rolled], 0.0, own=0, failed="").done


def test_a_failure_on_another_node_is_one(rolls: Rolls) -> None:
    """It says where; one of earlier orders is none."""
    rolls.roll(applied(), 0)
    rolls.fail(Failure(serial=rolls.orders.serial - 1, reason="old"), "far")
    before = rolls.status([], NOW).failed
    rolls.fail(Failure(serial=rolls.orders.serial, reason="broken", kept=0), "far")
    rolls.fail(Failure(serial=rolls.orders.serial, reason="later"), "farther")

    assert before == ""
    assert rolls.status([], NOW).failed == "far: broken"


def test_orders_that_nodes_have_are_not_numbered_again(rolls: Rolls, tmp_path: Path) -> None:
    """Control has lost its disk, and they have not."""
    rolls.count_on(7, 4)
    rolls.count_on(2, 1)

    generation = rolls.roll(applied(), 0)

    assert generation == 5
    assert rolls.orders.serial == 8
    assert read_orders(tmp_path) == rolls.orders
