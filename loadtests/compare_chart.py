"""CPU per request as a drawing: one bar a row, logarithmic, no script and nothing loaded. Pure."""

import math
from typing import Final

from compare_figures import Report, over_floor

from serving.report.svg import Scale, element, escaped, figure

__all__ = ["chart"]

LABEL: Final = 290
WIDTH: Final = 460
ROW: Final = 20
TOP: Final = 34
COLORS: Final = {"floor": "#8a8f98", "sluice": "#1f77b4"}
OTHER: Final = "#c9873a"


def chart(report: Report) -> str:
    """An SVG: ratio to the floor, cheapest row first, a whisker from least to most.

    Rows without figures are left out.
    """
    rows = [(row, over_floor(row)) for row in report.rows if row.samples]
    rows.sort(key=lambda one: one[1].median)
    most = max([2.0, *(found.most for _, found in rows)])
    scale = Scale(0.0, math.log(most), LABEL, LABEL + WIDTH)

    def x(ratio: float) -> float:
        return max(scale(math.log(max(ratio, 1.0))), LABEL + 2.0)

    width, height = LABEL + WIDTH + 90, TOP + ROW * len(rows) + 24
    title = f"CPU per request, times the floor's ({report.about['date']})"
    parts = [
        element("rect", width="100%", height="100%", fill="#fff"),
        element("text", escaped(title), x=8, y=18, font_size=14),
    ]
    for tick in _ticks(most):
        down = f"M{x(tick):.1f} {TOP - 4}V{height - 18}"
        parts.append(element("path", d=down, stroke="#ddd"))
        parts.append(element("text", f"{tick:g}", x=x(tick), y=height - 6, text_anchor="middle"))
    for place, (row, found) in enumerate(rows):
        y = TOP + ROW * place
        color = COLORS.get(row.group, OTHER)
        least, end, last = x(found.least), x(found.median), x(found.most)
        parts += [
            element("text", escaped(row.title), x=LABEL - 8, y=y + 13, text_anchor="end"),
            element("rect", x=LABEL, y=y + 3, width=end - LABEL, height=13, fill=color),
            element("path", d=f"M{least:.1f} {y + 9.5}H{last:.1f}", stroke="#222"),
            element("text", f"{found.median:,.2f}", x=last + 6, y=y + 13),
        ]
    group = element("g", *parts, font_family="sans-serif", font_size=12, fill="#444")
    return figure(width, height, title, group) + "\n"


def _ticks(most: float) -> list[float]:
    """1, 2, 5, 10, 20 … up to `most`."""
    decades = range(int(math.log10(most)) + 1)
    return [float(n * 10**ten) for ten in decades for n in (1, 2, 5) if n * 10**ten <= most]
