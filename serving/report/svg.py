"""SVG as text: escaped elements, scales, ticks, axes. Pure.

Everything that comes from elsewhere goes through `escaped`, and every element through `element`,
so what these give is well-formed whatever a column is called.
"""

import html
import math
import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

__all__ = [
    "Plot",
    "Scale",
    "coded",
    "element",
    "escaped",
    "figure",
    "path",
    "ticks",
    "tip",
]

_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""Characters that no document may hold, not even as a reference."""


def escaped(text: object) -> str:
    """Text that stays text in HTML and SVG, in content and in attributes."""
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def coded(text: object) -> str:
    """Escaped text in which `names` in backticks are set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))


def element(name: str, /, *children: str, **attributes: object) -> str:
    """One element.

    Args:
        name: of the element.
        children: markup; text has to be `escaped`.
        attributes: by name, `_` for `-`; `css` is `class`. Numbers are rounded to two digits,
            None is left out.
    """
    written = "".join(
        f' {"class" if key == "css" else key.replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(children)
    return f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escaped(value)


def tip(text: str) -> str:
    """What is shown where the pointer rests on the element around it."""
    return element("title", escaped(text))


def figure(width: float, height: float, label: str, *parts: str) -> str:
    """A picture that is as wide as there is room for; `label` is read to those who cannot see."""
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        xmlns="http://www.w3.org/2000/svg",
    )


def path(points: Sequence[tuple[float, float]], *, close: bool = False) -> str:
    """The `d` of a line through points."""
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f"M{steps}{'Z' if close else ''}" if steps else ""


class Scale(msgspec.Struct, frozen=True):
    """From values to pixels. `root` spreads small values: pixels go by the square root."""

    low: float
    high: float
    start: float
    end: float
    root: bool = False

    def __call__(self, value: float) -> float:
        """Where a value is; values outside are moved to the nearer end."""
        span = self.high - self.low
        part = (value - self.low) / span if span > 0 else 0.5
        part = min(max(part, 0.0), 1.0)
        return self.start + (math.sqrt(part) if self.root else part) * (self.end - self.start)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values within a range, at most so many."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, most)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * one for one in (1, 2, 2.5, 5, 10) if size * one >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(one * step, 12) for one in range(first, last + 1)]


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """The frame of a picture: where its axes are."""

    width: float
    height: float
    left: float = 38.0
    right: float = 8.0
    top: float = 8.0
    bottom: float = 20.0

    @property
    def x_range(self) -> tuple[float, float]:
        """Left and right end of the plotted area."""
        return self.left, self.width - self.right

    @property
    def y_range(self) -> tuple[float, float]:
        """Its bottom and top, as a scale takes them."""
        return self.height - self.bottom, self.top

    def grid(self, scale: Scale, values: Sequence[float], words: Callable[[float], str]) -> str:
        """Horizontal lines with their values at the left."""
        start, end = self.x_range
        return "".join(
            element("line", css="grid", x1=start, x2=end, y1=scale(value), y2=scale(value))
            + self.label(start - 5, scale(value) + 3.2, words(value), "end")
            for value in values
        )

    def below(self, scale: Scale, values: Sequence[float], words: Callable[[float], str]) -> str:
        """Labels below the plotted area; those at its ends stay inside."""
        start, end = self.x_range
        found = []
        for value in values:
            at = scale(value)
            side = "start" if at < start + 12 else "end" if at > end - 12 else "middle"
            found.append(self.label(at, self.height - self.bottom + 13, words(value), side))
        return "".join(found)

    def label(self, x: float, y: float, text: str, side: str = "middle") -> str:
        """Small text; `side` is the end of it that stands at x."""
        return element("text", escaped(text), css="label", x=x, y=y, text_anchor=side)
