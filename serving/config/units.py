"""Durations and sizes as people write them: `50ms`, `16MiB`."""

import re
from typing import Final

__all__ = ["ByteSize", "Seconds"]

_SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*\Z")


def _parse(text: object, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _QUANTITY.match(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"expected a number with a unit ({', '.join(units)}), such as {example}")
    return float(match[1]) * units[match[2]]


class Seconds(float):
    """A duration in seconds; written with a unit in YAML (`50ms`, `5s`, `7d`)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "Seconds":
        """Read `50ms`, `1.5s`, `2h`. Raises ValueError for anything else, bare numbers too."""
        return cls(_parse(text, _SECONDS, "50ms"))

    def __str__(self) -> str:
        for unit, factor in reversed(_SECONDS.items()):
            if self >= factor and round(self / factor, 6) == int(self / factor):
                return f"{int(self / factor)}{unit}"
        return f"{float(self) * 1e3:g}ms"


class ByteSize(int):
    """A number of bytes; written with a unit in YAML (`16MiB`)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "ByteSize":
        """Read `512KiB`, `16MiB`. Raises ValueError for anything else, bare numbers too."""
        return cls(_parse(text, _BYTES, "16MiB"))

    def __str__(self) -> str:
        for unit, factor in reversed(_BYTES.items()):
            if self >= factor and int(self) % factor == 0:
                return f"{int(self) // factor}{unit}"
        return f"{int(self)}B"
