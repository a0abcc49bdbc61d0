"""What became of each request, in arrays: cheap to write while sending, added up afterwards."""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.loadtest.answers import Facts

__all__ = ["Outcomes", "Words"]

_MOST_WORDS: Final = 1000


class Words(msgspec.Struct):
    """Texts by number, so that an array can hold them. The first is the empty one."""

    texts: list[str] = msgspec.field(default_factory=lambda: [""])
    numbers: dict[str, int] = msgspec.field(default_factory=lambda: {"": 0})

    def number(self, text: str) -> int:
        """The number of a text; past a thousand different ones all share one."""
        found = self.numbers.get(text)
        if found is None:
            if len(self.texts) >= _MOST_WORDS:
                text = "(others)"
            found = self.numbers.setdefault(text, len(self.texts))
            if found == len(self.texts):
                self.texts.append(text)
        return found


class Outcomes:
    """One element a request of this process; times in seconds from the start of the run."""

    def __init__(self, count: int) -> None:
        self.status: NDArray[np.uint16] = np.zeros(count, np.uint16)
        self.ok: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self.answered: NDArray[np.bool_] = np.zeros(count, np.bool_)
        self.ended: NDArray[np.float64] = np.zeros(count, np.float64)
        self.lag: NDArray[np.float32] = np.zeros(count, np.float32)
        self.wait: NDArray[np.float32] = np.zeros(count, np.float32)
        self.version: NDArray[np.uint16] = np.zeros(count, np.uint16)
        self.role: NDArray[np.uint16] = np.zeros(count, np.uint16)
        self.features: NDArray[np.uint16] = np.zeros(count, np.uint16)
        self.bytes_sent: NDArray[np.uint32] = np.zeros(count, np.uint32)
        self.bytes_received: NDArray[np.uint32] = np.zeros(count, np.uint32)
        self.words = Words()
        """Statuses, versions, roles and feature statuses."""

        self.problems: dict[str, str] = {}
        """By status: the words of the first one that had it."""

        self.sent_count = 0
        self.ended_count = 0
        self.ok_count = 0
        self.unsent_count = 0
        self.most_in_flight = 0
        self.recent: list[int] = []
        """Requests that succeeded since somebody last looked; for the progress."""

    @property
    def in_flight(self) -> int:
        """Requests that left and have not ended."""
        return self.sent_count - self.ended_count

    def sent(self, index: int, size: int) -> None:
        """A request has left; `size` in bytes."""
        self.bytes_sent[index] = size
        self.sent_count += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def unsent(self, index: int, now: float) -> None:
        """A request's time was over before it could leave."""
        self.ended[index] = now
        self.unsent_count += 1

    def succeeded(self, index: int, now: float, status: str, facts: Facts, size: int) -> None:
        """A request was answered with success; `size` of the answer in bytes."""
        number = self.words.number
        self.status[index] = number(status)
        self.ok[index] = self.answered[index] = True
        self.ended[index] = now
        self.version[index] = number(facts.version)
        self.role[index] = number(facts.role)
        self.features[index] = number(facts.features)
        self.bytes_received[index] = size
        self.ended_count += 1
        self.ok_count += 1
        self.recent.append(index)

    def failed(
        self, index: int, now: float, status: str, words: str, *, answered: bool, size: int = 0
    ) -> None:
        """A request was answered with an error, or not at all."""
        self.status[index] = self.words.number(status)
        self.answered[index] = answered
        self.ended[index] = now
        self.bytes_received[index] = size
        self.ended_count += 1
        if status not in self.problems:
            self.problems[status] = " ".join(words.split())[:200]
