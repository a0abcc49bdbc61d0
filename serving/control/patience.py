"""How often and how long something is sent again that nobody has taken."""

from typing import Final

__all__ = ["GIVE_UP_SECONDS", "next_attempt"]

GIVE_UP_SECONDS: Final = 86400.0
"""After which it is not sent any more."""

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0


def next_attempt(attempts: int, now: float) -> float:
    """When to try again after that many attempts: 1, 2, 4 … seconds later, at most five minutes."""
    return now + float(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempts - 1, 20)))
