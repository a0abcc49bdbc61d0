"""Numbers and times as people read them, on a page or on a terminal. Pure."""

import math
from datetime import UTC, datetime
from typing import Final

__all__ = [
    "between",
    "clock",
    "count",
    "moment",
    "number",
    "percent",
    "probability",
    "short_time",
    "span",
    "tick",
]

_LEAST_Q: Final = 1e-6


def moment(seconds: float) -> str:
    """A time since 1970 in UTC; seconds only where they are not 0."""
    when = datetime.fromtimestamp(math.floor(seconds), UTC)
    return f"{when:%Y-%m-%d %H:%M:%SZ}" if when.second else f"{when:%Y-%m-%d %H:%MZ}"


def clock(seconds: float, span: float) -> str:
    """A time on an axis that covers `span` seconds: as much of it as tells ticks apart."""
    when = datetime.fromtimestamp(math.floor(seconds), UTC)
    if span > 5 * 86400:
        return f"{when:%b} {when.day}"
    if span > 1.5 * 86400:
        return f"{when:%b} {when.day} {when:%H:%M}"
    return f"{when:%H:%M}" if span > 600 else f"{when:%H:%M:%S}"


def percent(share: float) -> str:
    """A share with as many digits as show that it is not nothing."""
    if share != 0 and abs(share) < 0.0005:
        digits = min(6, -math.floor(math.log10(abs(share))) - 2)
        return f"{100 * share:.{max(1, digits)}f} %"
    return f"{100 * share:.1f} %"


def number(value: float) -> str:
    """About three digits."""
    size = abs(value)
    form = ",.0f" if size >= 100 else ".4f" if 0 < size < 0.1 else ".3g"
    text = f"{size:{form}}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text.replace(",", "")) else text


def span(seconds: float) -> str:
    """A length of time in its largest unit: `1 min`, `36 h` is `1.5 d`."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def short_time(seconds: float) -> str:
    """A short time in the unit that needs no zeros, three digits of it: `1.25 ms`."""
    if seconds == 0:
        return "0"
    # From where three digits would round to a thousand of the smaller unit.
    if abs(seconds) >= 0.9995:
        return f"{seconds:.3g} s" if abs(seconds) < 999.5 else f"{seconds:,.0f} s"
    if abs(seconds) >= 0.9995e-3:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds * 1e6:.3g} µs"


def tick(value: float) -> str:
    """A round number at an axis."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def between(low: str, high: str) -> str:
    """An interval; a dash would look like a minus."""
    return f"{low} to {high}"


def count(rows: int) -> str:
    """Whole, in groups of three."""
    return f"{rows:,}"


def probability(q: float) -> str:
    """A p- or q-value; of tiny ones only that they are tiny."""
    return f"< {_LEAST_Q:g}" if q < _LEAST_Q else f"{q:.2g}"
