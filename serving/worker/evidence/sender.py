"""How evidence reaches the store: everything unconfirmed, whole, several times a second.

One round trip writes what control has not confirmed and reads what it has. A store that does not
answer is asked again a second later; nothing is lost meanwhile but what an `Outbox` must give up.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import redis.asyncio as redis
from redis.exceptions import RedisError

from serving.clock import Clock
from serving.metrics import MetricsFile
from serving.rollout.wire import UNFOLDED_BYTES, evidence_key, folded_key
from serving.worker.evidence.in_flight import Word
from serving.worker.evidence.outbox import Outbox
from serving.worker.evidence.watch import Watch

__all__ = ["PERIOD_SECONDS", "Account", "Sender", "count_lost"]

PERIOD_SECONDS: Final = 0.25
_RETRY_SECONDS: Final = 1.0
_AFTERWARDS_SECONDS: Final = 5.0
"""Period of a rollout that counts no more, until control has taken the rest or an hour is over."""

_BYTES_PER_SECOND: Final = 1 << 20
"""A backlog is written whole each time: the larger it is, the more seldom."""


class Account(msgspec.Struct, eq=False):
    """One rollout's evidence of this worker: where it comes from, and what is on its way."""

    watch: Watch
    outbox: Outbox
    due: float = 0.0
    """When it is sent next, monotonic."""

    stands: bool = False
    """Whether the store may hold batches of ours."""

    def close(self, now: float, wall: float) -> dict[str, int]:
        """Close a batch, if anything has happened since the last.

        Returns:
            By reason: requests that had to be given up for it.
        """
        batch = self.watch.close_batch(self.outbox.next_number, wall)
        if batch is None:
            return self.outbox.give_up(now)
        return self.outbox.put(batch, self.watch.flight.words[Word.NOTED], now)


class Sender:
    """Sends accounts, over a connection of its own made as `client` makes its (`connect`).

    The connection is used without a client around it: pipelines and pools of redis-py cost more
    than all requests of a batch do (`docs/decisions.md`).
    """

    def __init__(
        self, client: "redis.Redis", metrics: MetricsFile, clock: Clock, log: logging.Logger
    ) -> None:
        pool: Any = client.connection_pool  # whose methods have no types
        self._connection = pool.make_connection()
        self._metrics = metrics
        self._now: Callable[[], float] = clock.monotonic
        self._wall: Callable[[], float] = clock.wall
        self._log = log
        self._silent = False

    async def send(
        self, accounts: Iterable[Account], *, at_once: bool = False, ended: bool = False
    ) -> bool:
        """Close a batch of each account that is due and have the store take it.

        Args:
            accounts: of this worker.
            at_once: all of them are due.
            ended: nothing will follow.

        Returns:
            Whether the store has what it was to have.
        """
        now = self._now()
        due = [one for one in accounts if at_once or now >= one.due]
        for one in due:
            count_lost(self._metrics, one.watch.owner.model, one.close(now, self._wall()))
        sending = [one for one in due if ended or one.stands or len(one.outbox)]
        if not sending:
            return True
        try:
            commands: list[tuple[str, str, str, bytes] | tuple[str, str, str]] = []
            for one in sending:
                outbox, rollout = one.outbox, one.watch.id
                incarnation = one.watch.owner.incarnation
                body, number, noted = outbox.body(ended=ended)
                commands.append(("HSET", evidence_key(rollout), incarnation, body))
                commands.append(("HGET", folded_key(rollout), incarnation))
                words = one.watch.flight.words
                words[Word.NUMBER], words[Word.SENT] = number, noted
            answers = await self._exchange(commands)
        except (RedisError, OSError) as error:
            if not self._silent:
                self._log.warning("evidence waits for the store: %s", error)
                self._silent = True
            for one in sending:
                one.due = now + _RETRY_SECONDS
            return False
        self._silent = False
        for one, folded in zip(sending, answers[1::2], strict=True):
            self._arrived(one, int(folded or 0), now)
        return True

    async def close(self) -> None:
        """Drop the connection."""
        await self._connection.disconnect(nowait=True)

    async def _exchange(self, commands: Sequence[tuple[str | bytes, ...]]) -> list[Any]:
        """One round trip. The connection is made anew if it is not there, or this fails."""
        connection = self._connection
        try:
            await connection.send_packed_command(
                connection.pack_commands(commands), check_health=False
            )
            return [await connection.read_response() for _ in commands]
        except BaseException:  # answers may still come: to nobody
            await connection.disconnect(nowait=True)
            raise

    def _arrived(self, account: Account, folded: int, now: float) -> None:
        outbox, words = account.outbox, account.watch.flight.words
        words[Word.STANDING] = words[Word.SENT]
        account.stands = len(outbox) > 0
        outbox.confirm(folded)
        counting = account.watch.rollout.counting
        period = PERIOD_SECONDS if counting else _AFTERWARDS_SECONDS
        account.due = now + max(period, min(outbox.bytes, UNFOLDED_BYTES) / _BYTES_PER_SECOND)


def count_lost(metrics: MetricsFile, model: str, lost: dict[str, int]) -> None:
    """Count requests that control will never hear of."""
    for reason, requests in lost.items():
        metrics.counter("sluice_evidence_lost_total", model=model, reason=reason).inc(requests)
