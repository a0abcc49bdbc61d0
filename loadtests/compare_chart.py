"""CPU per request as a drawing: one bar a row, logarithmic, no script and nothing loaded. Pure."""

import math
from html import escape
from typing import Final

from compare_figures import Report, over_floor

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

    def x(ratio: float) -> float:
        return LABEL + WIDTH * max(math.log(max(ratio, 1.0)) / math.log(most), 0.004)

    height = TOP + ROW * len(rows) + 24
    title = f"CPU per request, times the floor's ({report.about['date']})"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 90}" height="{height}">',
        '<g font-family="sans-serif" font-size="12" fill="#444">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="8" y="18" font-size="14">{escape(title)}</text>',
    ]
    for tick in _ticks(most):
        at = f"{x(tick):.1f}"
        parts.append(f'<path d="M{at} {TOP - 4}V{height - 18}" stroke="#ddd"/>')
        parts.append(f'<text x="{at}" y="{height - 6}" text-anchor="middle">{tick:g}</text>')
    for place, (row, found) in enumerate(rows):
        y = TOP + ROW * place
        color = COLORS.get(row.group, OTHER)
        end = x(found.median)
        parts += [
            f'<text x="{LABEL - 8}" y="{y + 13}" text-anchor="end">{escape(row.title)}</text>',
            f'<rect x="{LABEL}" y="{y + 3}" width="{end - LABEL:.1f}" height="13" fill="{color}"/>',
            f'<path d="M{x(found.least):.1f} {y + 9.5}H{x(found.most):.1f}" stroke="#222"/>',
            f'<text x="{max(end, x(found.most)) + 6:.1f}" y="{y + 13}">{found.median:,.2f}</text>',
        ]
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _ticks(most: float) -> list[float]:
    """1, 2, 5, 10, 20 … up to `most`."""
    decades = range(int(math.log10(most)) + 1)
    return [float(n * 10**ten) for ten in decades for n in (1, 2, 5) if n * 10**ten <= most]
