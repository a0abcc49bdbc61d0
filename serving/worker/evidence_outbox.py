"""Batches that control has not confirmed, as they stand in the store. No I/O."""

from collections import deque
from typing import Final

import msgspec

from serving.rollout.wire import Batch

__all__ = ["LONGEST_SECONDS", "MOST_BYTES", "Outbox"]

MOST_BYTES: Final = 64 << 20
LONGEST_SECONDS: Final = 3600.0

_ENCODER: Final = msgspec.msgpack.Encoder()
_TOO_MANY: Final = "too_many"
_TOO_OLD: Final = "too_old"


class _Kept(msgspec.Struct, frozen=True):
    number: int
    at: float
    requests: int
    content: bytes


class _Whole(msgspec.Struct, array_like=True):
    """An `Unfolded`, field by field, whose batches are encoded already."""

    worker: str
    incarnation: str
    batches: list[msgspec.Raw]
    ended: bool


class Outbox:
    """Hold at most `MOST_BYTES` and nothing older than `LONGEST_SECONDS`; then the oldest go.

    Those are counted, and the next batch says so. Control sees that their numbers never come.
    """

    def __init__(self, worker: str, incarnation: str) -> None:
        self._worker = worker
        self._incarnation = incarnation
        self._kept: deque[_Kept] = deque()
        self.bytes = 0
        self.next_number = 1
        self.noted = 0
        """Requests in all batches so far."""

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, batch: Batch, noted: int, now: float) -> dict[str, int]:
        """Take a batch, numbered `next_number`.

        Args:
            batch: the next one.
            noted: requests in it and all before it.
            now: monotonic.

        Returns:
            By reason: requests that had to be given up to make room.
        """
        batch.lost = lost = self._make_room(now)
        content = _ENCODER.encode(batch)
        self._kept.append(_Kept(batch.number, now, noted - self.noted, content))
        self.bytes += len(content)
        self.noted = noted
        self.next_number = batch.number + 1
        return lost

    def confirm(self, number: int) -> None:
        """Let go of what is in the book, up to and with `number`."""
        while self._kept and self._kept[0].number <= number:
            self._drop()

    def body(self, *, ended: bool = False) -> bytes:
        """Everything unconfirmed, as `Unfolded`."""
        contents = [msgspec.Raw(one.content) for one in self._kept]
        return _ENCODER.encode(_Whole(self._worker, self._incarnation, contents, ended))

    def _make_room(self, now: float) -> dict[str, int]:
        lost: dict[str, int] = {}
        while self._kept:
            if now - self._kept[0].at > LONGEST_SECONDS:
                reason = _TOO_OLD
            elif self.bytes > MOST_BYTES:
                reason = _TOO_MANY
            else:
                break
            lost[reason] = lost.get(reason, 0) + self._drop()
        return lost

    def _drop(self) -> int:
        one = self._kept.popleft()
        self.bytes -= len(one.content)
        return one.requests
