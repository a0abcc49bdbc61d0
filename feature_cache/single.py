"""One entity whose views share one numeric key: the common request.

Everything but the digits is known when the plan is compiled, so a read formats a few byte strings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from feature_cache.connection import command
from feature_cache.reading import FAILED, Found, Reading

__all__ = ["Single"]


class Single:
    """What several views are asked for one number.

    Args:
        name: of the key.
        span: the smallest and largest number that is one.
        affixes: for each view what stands before and behind the digits.
        first: where each view's row is among those of all.
    """

    __slots__ = (
        "_affixes",
        "_commands",
        "_high",
        "_low",
        "count",
        "failed",
        "first",
        "flights",
        "identity",
        "name",
        "no",
        "yes",
    )

    def __init__(
        self,
        name: str,
        span: tuple[int, int],
        affixes: Sequence[tuple[bytes, bytes]],
        first: Mapping[str, int],
    ) -> None:
        self.name = name
        self._low, self._high = span
        self._affixes = tuple(affixes)
        self._commands: dict[int, bytes] = {}
        self.first = first
        self.count = count = len(self._affixes)
        """How many views."""
        self.identity = (name, span, self._affixes)
        """Equal for those that read the same rows."""
        self.no, self.yes = [False] * count, [True] * count
        """Flags of every view; shared, so nobody changes them."""
        nothing = Found([None] * count, self.no, self.yes, -1, [FAILED] * count)
        self.failed = Reading(1, 0, nothing, first)
        """What is known of an entity whose rows cannot be read."""
        self.flights: dict[int, Any] = {}
        """Reads under way, by number; a reader's."""

    def value(self, entities: Mapping[str, Sequence[Any]]) -> int | None:
        """The number, if it is one, and the only one; else None."""
        values = entities.get(self.name, ())
        if len(values) != 1:
            return None
        value = values[0]
        return value if type(value) is int and self._low <= value <= self._high else None

    def key(self, value: int) -> bytes:
        """The first view's key."""
        before, behind = self._affixes[0]
        return b"%b%d%b" % (before, value, behind)

    def keys(self, value: int) -> list[bytes]:
        """Every view's key."""
        digits = b"%d" % value
        return [before + digits + behind for before, behind in self._affixes]

    def command(self, value: int) -> bytes:
        """MGET of these keys, as RESP bytes."""
        digits = b"%d" % value
        form = self._commands.get(len(digits))
        if form is None:
            # The lengths that RESP states depend on the number of digits, and on nothing else.
            sample = [before + b"\0" * len(digits) + behind for before, behind in self._affixes]
            packed = command(b"MGET", *sample).replace(b"%", b"%%")
            form = packed.replace(b"\0" * len(digits), b"%b")
            self._commands[len(digits)] = form
        return form % ((digits,) * self.count)
