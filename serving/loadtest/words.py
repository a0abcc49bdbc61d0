"""Figures of a load test as people read them, on a page, on a terminal and in a verdict. Pure."""

from serving.loadtest.results import Comparison
from serving.report.words import percent, short_time

__all__ = ["chance_words", "figure_words", "share_words"]


def figure_words(figure: str, value: float | None) -> str:
    """A value of `Comparison.figure`, with its unit; a dash where there is none."""
    if value is None:
        return "–"
    if figure == "throughput":
        return f"{value:.1f}/s"
    return percent(value) if figure in ("error rate", "goodput") else short_time(value)


def chance_words(one: Comparison) -> str:
    """Which ratios chance leaves likely; empty where that is not known."""
    if one.low is None and one.high is None:
        return ""
    if one.high is None:
        return f"{one.low:.2g} or more"
    return f"up to {one.high:.2g}" if one.low is None else f"{one.low:.2g} to {one.high:.2g}"


def share_words(share: float) -> str:
    """A share beside a limit: four digits, and no zeros that nobody asked for."""
    return f"{share * 100:.4g} %"
