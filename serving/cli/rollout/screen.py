"""Where `sluice rollout watch` shows what it sees: a picture, lines, or lines of JSON."""

import sys
import time
from types import TracebackType
from typing import Protocol, Self

import click
import msgspec

from serving.cli.output import Output
from serving.cli.rollout.words import changes, headline
from serving.rollout.standing import RolloutStanding

__all__ = ["Screen", "screen_for"]


class Screen(Protocol):
    """A context manager around the watching."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing; what was shown last stays."""
        ...

    def show(self, standing: RolloutStanding) -> None:
        """Show this state."""
        ...

    def trouble(self, words: str) -> None:
        """Nothing new is known, and why."""
        ...


def screen_for(output: Output) -> Screen:
    """Redrawn in place on a terminal, otherwise what is new, a line each."""
    if output.json:
        return _Json()
    return _Picture() if sys.stdout.isatty() else _Lines(output)


class _Quiet:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def trouble(self, words: str) -> None:
        """Nobody reads it."""


class _Json(_Quiet):
    """A line whenever something has changed."""

    def __init__(self) -> None:
        self._last = b""

    def show(self, standing: RolloutStanding) -> None:
        """The whole standing."""
        line = msgspec.json.encode(standing)
        if line != self._last:
            self._last = line
            click.echo(line.decode())  # flushes: whoever reads a pipe sees it at once


class _Lines(_Quiet):
    """What is new: another step or phase, another verdict."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last: RolloutStanding | None = None
        self._said = ""

    def show(self, standing: RolloutStanding) -> None:
        """What has changed since the last time."""
        if self._last is None:
            click.echo(headline(standing, time.time()))
        clock = time.strftime("%H:%M:%S")
        for line in changes(self._last, standing):
            click.echo(f"{clock} {line}")
        self._last, self._said = standing, ""

    def trouble(self, words: str) -> None:
        """Once, not every second."""
        if words != self._said:
            self._output.note(words)
            self._said = words


class _Picture:
    """What `sluice rollout status` shows, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False, markup=False, emoji=False)
        # Drawn when there is something new, and no more often: nothing flickers.
        self._live = Live(console=console, auto_refresh=False)
        self._last: RolloutStanding | None = None

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

    def show(self, standing: RolloutStanding) -> None:
        """Draw it."""
        self._last = standing
        self._draw("")

    def trouble(self, words: str) -> None:
        """Draw what was known last, and say that it is old."""
        self._draw(words)

    def _draw(self, words: str) -> None:
        from rich.console import Group
        from rich.text import Text

        from serving.cli.rollout.tables import standing_view

        assert self._last is not None
        picture = standing_view(self._last, time.time())
        if words:
            picture = Group(picture, "", Text(words, style="red"))
        self._live.update(picture, refresh=True)
