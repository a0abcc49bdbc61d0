"""How `sluice up` shows what it is waiting for: a live table, plain lines, or nothing."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from serving.engine.seeding import Seeding
from serving.engine.stages import Engine, Stage

__all__ = ["Progress", "Stage", "progress_for", "stages"]


def stages(engine: Engine, seeding: Seeding | None = None) -> list[Stage]:
    """What there is to wait for, and how far it is."""
    found = engine.stages()
    if seeding is not None:
        found.append(Stage("features", seeding.text, seeding.done))
    return found


class Progress(Protocol):
    """A context manager around the start; `update` is called whenever something changed."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing."""
        ...

    def update(self, now: list[Stage]) -> None:
        """Show this state."""
        ...


def progress_for(*, silent: bool) -> Progress:
    """A live table on a terminal, plain lines otherwise, nothing if `silent`."""
    if silent:
        return _Lines(lambda _text: None)
    if sys.stderr.isatty():
        return _Table()
    return _Lines(lambda text: print(text, file=sys.stderr, flush=True))  # noqa: T201


class _Lines:
    """Each stage once, when it is done."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._started = time.monotonic()
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def update(self, now: list[Stage]) -> None:
        """Tell what has become done since the last time."""
        for stage in now:
            if stage.done and stage.name not in self._told:
                self._told.add(stage.name)
                elapsed = time.monotonic() - self._started
                self._write(f"{stage.name:<8} {stage.text} ({elapsed:.1f} s)")


class _Table:
    """All stages, redrawn in place; log lines scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        console = Console(stderr=True, highlight=False)
        self._live = Live(console=console, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def update(self, now: list[Stage]) -> None:
        """Redraw."""
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        for stage in now:
            mark = Text("✓", style="green") if stage.done else Spinner("dots")
            seconds = ""
            if stage.done:
                took = self._seconds.setdefault(stage.name, time.monotonic() - self._started)
                seconds = f"{took:.1f} s"
            table.add_row(mark, Text(stage.name), Text(stage.text), Text(seconds, style="dim"))
        self._live.update(table)
