"""How much traffic there is, and how badly it goes, look by look."""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["SCENARIOS", "Traffic", "traffic"]

Floats = NDArray[np.float64]

INCIDENT_SECONDS: Final = 300.0
INCIDENT_LEVEL: Final = 20.0
"""With 0.5 % errors otherwise, a tenth of all requests fail."""

DAY: Final = 86400.0


class Traffic(msgspec.Struct, frozen=True):
    """Both of shape [looks]; after the last look it stays as it was there."""

    volume: Floats
    """Requests, as a multiple of the mean."""

    level: Floats
    """Errors, slow answers and missing features per request, as a multiple of the usual share.
    Both versions share it."""

    look: float = 1.0
    """Seconds between looks."""


def traffic(name: str, seconds: float, look: float = 1.0) -> Traffic:
    """The scenario of this name.

    Args:
        name: one of `SCENARIOS`.
        seconds: how long; a day is squeezed into it if it is shorter.
        look: seconds between looks.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in SCENARIOS:
        raise ValueError(f"there is no scenario `{name}`; there is {', '.join(SCENARIOS)}")
    looks = max(1, round(seconds / look))
    at: Floats = (np.arange(looks, dtype=np.float64) + 0.5) * look
    return SCENARIOS[name](at, looks * look, look)


def _flat(at: Floats, seconds: float, look: float) -> Traffic:
    del seconds
    return Traffic(np.ones_like(at), np.ones_like(at), look)


def _daily(at: Floats, seconds: float, look: float) -> Traffic:
    """Four times as much at noon as at night; the rate of errors follows a quarter later."""
    turn = 2 * np.pi * at / min(DAY, seconds)
    return Traffic(1 - 0.6 * np.cos(turn), 1 + 0.5 * np.sin(turn), look)


def _incident(at: Floats, seconds: float, look: float) -> Traffic:
    """Five minutes in the middle, in which everything is twenty times as bad."""
    during = np.abs(at - seconds / 2) <= INCIDENT_SECONDS / 2
    return Traffic(np.ones_like(at), np.where(during, INCIDENT_LEVEL, 1.0), look)


def _rising(at: Floats, seconds: float, look: float) -> Traffic:
    """From 0.4 to 2 times the usual."""
    return Traffic(np.ones_like(at), 0.4 * 5 ** (at / seconds), look)


def _falling(at: Floats, seconds: float, look: float) -> Traffic:
    """From 2 to 0.4 times the usual."""
    return Traffic(np.ones_like(at), 2 * 5 ** (-at / seconds), look)


SCENARIOS: Final[dict[str, Callable[[Floats, float, float], Traffic]]] = {
    "flat": _flat,
    "daily": _daily,
    "incident": _incident,
    "rising": _rising,
    "falling": _falling,
}
"""By name. `daily` moves traffic and errors, `incident` is shared by both versions for five
minutes, `rising` and `falling` move the rate of errors fivefold in all."""
