"""What a person sees while a load test runs: a live table, or a line now and then."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from serving.cli.sparkline import sparkline
from serving.report.words import short_time

if TYPE_CHECKING:
    from rich.table import Table

    from serving.loadtest.runner import Shown

__all__ = ["line", "progress_for"]

_LINE_SECONDS: Final = 5.0
_KEPT: Final = 60


@contextlib.contextmanager
def progress_for(name: str, *, silent: bool) -> Iterator[Callable[["Shown"], None]]:
    """A live table on a terminal, a line every five seconds otherwise, nothing if `silent`."""
    if silent:
        yield lambda _shown: None
    elif sys.stderr.isatty():
        with _table(name) as update:
            yield update
    else:
        yield _Lines().update


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0
        self._latencies: list[float] = []

    def update(self, shown: "Shown") -> None:
        """Print, if it is time."""
        self._latencies += shown.latencies
        if shown.at < self._next:
            return
        self._next = shown.at + _LINE_SECONDS
        print(line(shown, self._latencies), file=sys.stderr, flush=True)  # noqa: T201
        self._latencies = []


def line(shown: "Shown", latencies: list[float]) -> str:
    """How far it is, in one line."""
    answered = f"{shown.ok} ok, {shown.ended - shown.ok} failed, {_waiting(shown)} in flight"
    return (
        f"{min(shown.at, shown.length):.0f}/{shown.length:.0f} s  {shown.phase}: "
        f"{shown.sent} sent, {answered}{_quantiles(latencies)}"
    )


def _waiting(shown: "Shown") -> int:
    return shown.sent - shown.ended


def _quantiles(latencies: list[float]) -> str:
    if not latencies:
        return ""
    ordered = sorted(latencies)
    p50, p99 = (ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.99))
    return f", p50 {short_time(p50)}, p99 {short_time(p99)}"


@contextlib.contextmanager
def _table(name: str) -> Iterator[Callable[["Shown"], None]]:
    from rich.console import Console
    from rich.live import Live

    history: list[tuple[float, int, float]] = []  # at, sent, p99
    with Live(console=Console(stderr=True, highlight=False), refresh_per_second=4) as live:

        def update(shown: "Shown") -> None:
            ordered = sorted(shown.latencies)
            p99 = ordered[int(len(ordered) * 0.99)] if ordered else 0.0
            history.append((shown.at, shown.sent, p99))
            del history[:-_KEPT]
            live.update(_drawn(name, shown, history))

        yield update


def _drawn(name: str, shown: "Shown", history: list[tuple[float, int, float]]) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    at = min(shown.at, shown.length)
    table.add_row(Text(name, style="bold"), Text(shown.phase))
    table.add_row(
        ProgressBar(total=shown.length, completed=at, width=30),
        Text(f"{at:.0f} of {shown.length:.0f} s"),
    )
    rates = [
        (sent - before_sent) / max(later - before, 1e-3)
        for (before, before_sent, _), (later, sent, _) in pairwise(history)
    ]
    table.add_row(Text(sparkline(rates)), Text(f"{rates[-1] if rates else 0:.0f} sent/s"))
    slow = [p99 for _, _, p99 in history]
    table.add_row(Text(sparkline(slow)), Text(f"p99 {short_time(slow[-1])}" if slow[-1] else ""))
    failed = shown.ended - shown.ok
    table.add_row(
        Text(f"{shown.ok} ok"),
        Text(f"{failed} failed", style="red" if failed else "dim"),
        Text(f"{_waiting(shown)} in flight", style="dim"),
        Text(f"{shown.unsent} unsent" if shown.unsent else "", style="red"),
    )
    return table
