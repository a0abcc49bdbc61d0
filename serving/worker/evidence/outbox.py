"""Batches that control has not confirmed, as they stand in the store. No I/O."""

from collections import deque
from typing import Final

import msgspec

from serving.rollout.wire import UNFOLDED_BYTES, Batch

__all__ = ["LONGEST_SECONDS", "MOST_BYTES", "Outbox"]

MOST_BYTES: Final = 64 << 20
LONGEST_SECONDS: Final = 3600.0
_SPARE_BYTES: Final = 1 << 20
"""Left for what a sibling adds who speaks for this worker (`orphans`)."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_TOO_MANY: Final = "too_many"
_TOO_OLD: Final = "too_old"


class _Kept(msgspec.Struct, frozen=True):
    number: int
    at: float
    requests: int
    noted: int
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
        batch.lost = lost = self.give_up(now)
        content = _ENCODER.encode(batch)
        self._kept.append(_Kept(batch.number, now, noted - self.noted, noted, content))
        self.bytes += len(content)
        self.noted = noted
        self.next_number = batch.number + 1
        return lost

    def confirm(self, number: int) -> None:
        """Let go of what is in the book, up to and with `number`."""
        while self._kept and self._kept[0].number <= number:
            self._drop()

    def body(self, *, ended: bool = False) -> tuple[bytes, int, int]:
        """What is to stand in the store, as `Unfolded`: of more than control reads, the oldest.

        Returns:
            It; the number of its last batch (of the last there was, if there is none in it); and
            how many requests are in that one and all before it.
        """
        room = UNFOLDED_BYTES - _SPARE_BYTES
        contents: list[msgspec.Raw] = []
        number, noted = self.next_number - 1, self.noted
        for one in self._kept:
            room -= len(one.content)
            if contents and room < 0:
                break
            contents.append(msgspec.Raw(one.content))
            number, noted = one.number, one.noted
        whole = ended and len(contents) == len(self._kept)
        encoded = _ENCODER.encode(_Whole(self._worker, self._incarnation, contents, whole))
        return encoded, number, noted

    def give_up(self, now: float) -> dict[str, int]:
        """Let go of what is too old or too much; by reason: how many requests that were."""
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
