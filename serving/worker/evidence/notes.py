"""What a request leaves behind for evidence, until it is counted.

Written by `watch` for every request, counted by `counting` some hundred at a time.
"""

from array import array
from typing import Any, Final

from serving.worker.evidence.faults import Fault

__all__ = ["CANARY", "DEFAULTED", "FAULTY", "KEYLESS", "PRODUCTION", "UNWELL", "Notes"]

CANARY: Final = 0
PRODUCTION: Final = 1

UNWELL: Final = 2
"""Flag: some view's status was not OK."""

DEFAULTED: Final = 4
"""Flag: a default stood for a value, so that the answer says nothing of the version."""

KEYLESS: Final = 8
"""Flag: the request has no key; its place is 0."""

FAULTY: Final = 16
"""Flag: it was not answered; `Notes.faults` says why."""


class Notes:
    """What requests of one probability have left behind, in the order they ended.

    Columns, and no object a request: hundreds of those would wait for the next batch, out of the
    processor's caches and in the garbage collector's way.
    """

    __slots__ = ("faults", "kinds", "met", "place", "places", "seconds", "took", "value", "values")

    def __init__(self) -> None:
        self.places = array("Q")
        """Where the key falls; 0 if there is none."""

        self.seconds = array("d")
        self.kinds = bytearray()
        """Arm and flags."""

        self.values: list[Any] = []
        """Of the plan's only source, a tuple of several, None; empty if the plan has none."""

        self.faults: list[tuple[int, Fault]] = []
        """Which were not answered, by their number, and why."""

        self.met = [0, 0]
        """Requests without a key that were drawn, for the canary and for production."""

        # Bound once: these are called for every request.
        self.place = self.places.append
        self.took = self.seconds.append
        self.value = self.values.append

    def __len__(self) -> int:
        return len(self.kinds)

    def clear(self) -> None:
        """They are counted."""
        del self.places[:]
        del self.seconds[:]
        del self.kinds[:]
        self.values.clear()
        self.faults.clear()
