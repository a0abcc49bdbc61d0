"""Durations as people write them: `5ms`, `1h`, `90d`."""

import re
from typing import Final

__all__ = ["milliseconds"]

_UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 36e5, "d": 864e5}
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*\Z")


def milliseconds(text: str) -> int:
    """Read a duration, at least one millisecond.

    Raises:
        ValueError: a bare number, an unknown unit, or less than a millisecond.
    """
    match = _DURATION.match(text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"expected a number with a unit ({', '.join(_UNITS)}), such as 7d")
    value = round(float(match[1]) * _UNITS[match[2]])
    if value < 1:
        raise ValueError("shorter than a millisecond")
    return value
