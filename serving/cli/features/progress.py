"""How far a load is: a bar on a terminal, a line every two seconds otherwise."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

__all__ = ["Counts", "load_progress"]

_LINE_SECONDS: Final = 2.0


class Counts(Protocol):
    """What a bar shows of a report."""

    @property
    def read(self) -> int:
        """Rows so far."""
        ...

    @property
    def rejected(self) -> int:
        """Those of them that do not fit."""
        ...


Tell = Callable[[float, Counts], None]


@contextmanager
def load_progress(view: str, *, silent: bool) -> Iterator[Tell]:
    """Give a function that is told how much of the file is done, 0 to 1, and the counts."""
    if silent:
        yield lambda _part, _report: None
    elif sys.stderr.isatty():
        yield from _bar(view)
    else:
        yield _lines(view)


def _lines(view: str) -> Tell:
    last = time.monotonic()

    def tell(part: float, report: Counts) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            print(f"{view}: {part:.0%}, {report.read:,} rows", file=sys.stderr, flush=True)  # noqa: T201

    return tell


def _bar(view: str) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows, {task.fields[rejected]:,} rejected"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(view, total=1.0, rows=0, rejected=0)

        def tell(part: float, report: Counts) -> None:
            progress.update(task, completed=part, rows=report.read, rejected=report.rejected)

        yield tell
