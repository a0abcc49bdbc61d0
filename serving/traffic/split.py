"""Where a key falls on the line from 0 to 2⁶⁴, and which share of the line a weight takes.

Scheme `blake2b-64`: `h = blake2b(salt ‖ 0x1f ‖ key, digest_size=8)`, read big-endian. A key
belongs to a share iff `h < threshold(percent)`. Everything is an integer: in floats
`(2**64 - 1) / 2**64` is 1.0, and 100 % would miss a key. Raising a weight only raises the
threshold, so a key that was taken stays taken.

The key of an integer entity is its decimal text; of a BYTES entity, its bytes, unnormalised.
`docs/assignment-vectors.json` publishes test vectors; another definition needs another name.
"""

import hashlib
from fractions import Fraction
from typing import Final

__all__ = ["LINE", "SCHEME", "Splitter", "threshold"]

SCHEME: Final = "blake2b-64"
LINE: Final = 1 << 64


def threshold(percent: float) -> int:
    """How much of the line `percent` (0 to 100) takes: 0 takes nothing, 100 every key."""
    if not 0 <= percent <= 100:
        raise ValueError(f"a share is between 0 and 100 percent, not {percent}")
    # Through the decimal text, so that 0.1 is a thousandth and not its nearest binary float.
    return int(Fraction(str(percent)) * LINE / 100)


class Splitter:
    """Places keys under one salt."""

    __slots__ = ("_seeded",)

    def __init__(self, salt: str) -> None:
        # Hashing the salt once and copying the state halves the cost per key.
        self._seeded = hashlib.blake2b(salt.encode() + b"\x1f", digest_size=8)

    def place(self, key: bytes) -> int:
        """Where `key` falls, from 0 up to and without 2⁶⁴."""
        seeded = self._seeded.copy()
        seeded.update(key)
        return int.from_bytes(seeded.digest(), "big")
