"""What control has the engine follow: new settings, another number of workers, other code.

Control says what is wanted (`serving.config.applied`) and sees in the workers' reports how far it
is: each says which generation it was started with. The engine does it, one worker of a node at a
time, and says so if it cannot. Control itself comes last, once no worker is behind.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from serving.config.applied import (
    Applied,
    Failure,
    Orders,
    read_applied,
    read_failure,
    read_orders,
    write_applied,
    write_failure,
    write_orders,
)
from serving.config.effects import concerns_control, concerns_workers, names_files
from serving.config.keys import WorkerReport, node_name
from serving.control.fleet.workers import state_of

__all__ = ["RollStatus", "Rolls", "judge"]


class RollStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far the engine is with what was ordered last.

    `rolled` of `workers` were started with `generation`. `control` is whether control is still to
    be started again. `failed` says why the engine has stopped; what ran before then goes on.
    """

    generation: int = 0
    rolled: int = 0
    workers: int = 0
    control: bool = False
    done: bool = True
    failed: str = ""


def judge(
    orders: Orders, reports: Sequence[WorkerReport], now: float, *, own: int, failed: str
) -> RollStatus:
    """Say how far it is, on all nodes.

    Args:
        orders: what is to be.
        reports: the workers' latest; one that is silent is not waited for.
        now: wall-clock seconds.
        own: control's own generation.
        failed: why it cannot be, empty if it can.
    """
    living = [one for one in reports if state_of(one, now) != "silent"]
    staying = [one for one in living if one.state != "draining"]
    rolled = [one for one in staying if one.generation >= orders.workers and one.state == "ready"]
    behind = [one for one in living if one.generation < orders.workers]
    control = orders.then_control or own < orders.control
    leaving = any(one.state == "draining" for one in living)
    # Elsewhere the number is Ray's affair, or Kubernetes': replicas come as there is room.
    spread = any(one.node not in {"", node_name()} for one in living)
    enough = (
        spread or len(rolled) == orders.number if isinstance(orders.number, int) else bool(rolled)
    )
    ordered = orders.serial > 0
    return RollStatus(
        generation=orders.workers,
        rolled=len(rolled),
        workers=len(staying),
        control=control,
        done=not ordered or (enough and not behind and not leaving and not control and not failed),
        failed=failed,
    )


class Rolls:
    """Orders of one engine. Blocks on the disk for a moment; may be called from any thread.

    Args:
        data: the data directory.
        engine: names the engine's start; orders that were meant for another one do not count.
        own: the generation that this control process was started with.
    """

    def __init__(self, data: Path, engine: str, own: int, log: logging.Logger) -> None:
        self._data = data
        self._own = own
        self._log = log
        found = read_orders(data)
        self.orders = found if found and found.engine == engine else Orders(engine=engine)
        self._unwritten = False
        self._one_at_a_time = threading.RLock()

    @property
    def applied(self) -> Applied | None:
        """The settings that were applied last, None if the engine goes by its directory."""
        return read_applied(self._data, self.latest)

    @property
    def latest(self) -> int:
        """The newest generation that was ordered."""
        return max(self.orders.workers, self.orders.control)

    def prepare(self, applied: Applied, after: int) -> int:
        """Write the settings of a new generation, later than `after`; give its number.

        Nobody goes by them before `follow`. Raises OSError.
        """
        generation = max(self.orders.newest, after) + 1
        write_applied(self._data, generation, applied)
        return generation

    def follow(self, before: Applied, after: Applied, generation: int) -> None:
        """Order what the difference takes."""
        with self._one_at_a_time:
            self._follow(before, after, generation)

    def _follow(self, before: Applied, after: Applied, generation: int) -> None:
        one, other = before.gateway, after.gateway
        moved = before.directory != after.directory and names_files(other)
        workers = moved or concerns_workers(one, other)
        control = moved or concerns_control(one, other)
        orders = self._standing()
        if one.engine.workers != other.engine.workers:
            orders = replace(orders, number=other.engine.workers)
        if workers:
            orders = replace(orders, workers=generation, then_control=control)
        elif control:
            orders = replace(orders, control=generation)
        self._issue(replace(orders, newest=generation))

    def roll(self, applied: Applied, after: int) -> int:
        """Order that every process is replaced; give the generation. Raises OSError."""
        with self._one_at_a_time:
            generation = self.prepare(applied, after)
            orders = replace(self.orders, workers=generation, then_control=True)
            self._issue(replace(orders, newest=generation))
            return generation

    def count_on(self, serial: int, newest: int) -> None:
        """Number later orders higher than these, which a node has: control has lost some."""
        with self._one_at_a_time:
            orders = replace(
                self.orders,
                serial=max(self.orders.serial, serial),
                newest=max(self.orders.newest, newest),
            )
            if orders != self.orders:
                self.orders = orders
                self._write()

    def fail(self, failure: Failure, node: str) -> None:
        """Note that a node cannot follow these orders, so that no other tries. Blocks."""
        if failure.serial == self.orders.serial and self._failure() is None:
            self._log.error("node %s does not follow: %s", node, failure.reason)
            write_failure(self._data, replace(failure, reason=f"{node}: {failure.reason}"))

    def status(self, reports: Sequence[WorkerReport], now: float) -> RollStatus:
        """How far it is, `now` in wall-clock seconds."""
        return judge(self.orders, reports, now, own=self._own, failed=self._failed())

    def keep(self, reports: Sequence[WorkerReport], now: float) -> None:
        """Order control's own end once no worker is behind; call it every second or so."""
        with self._one_at_a_time:
            if self._unwritten:
                self._write()
            if not self.orders.then_control:
                return
            pending = replace(self.orders, then_control=False)
            if judge(pending, reports, now, own=pending.control, failed=self._failed()).done:
                self._issue(replace(pending, control=pending.workers))

    def _standing(self) -> Orders:
        """The orders without what has failed: it is not tried again unasked."""
        failure = self._failure()
        if failure is None:
            return self.orders
        return replace(self.orders, workers=failure.kept, then_control=False)

    def _failed(self) -> str:
        failure = self._failure()
        return "" if failure is None else failure.reason

    def _failure(self) -> Failure | None:
        failure = read_failure(self._data)
        return failure if failure and failure.serial == self.orders.serial else None

    def _issue(self, orders: Orders) -> None:
        self.orders = replace(orders, serial=self.orders.serial + 1)
        self._write()

    def _write(self) -> None:
        try:
            write_orders(self._data, self.orders)
        except OSError as error:
            # It is decided and journaled; `keep` tries again.
            self._log.error("the engine cannot be told of a change: %s", error.strerror)
            self._unwritten = True
        else:
            self._unwritten = False
