"""What a person sees while runs are tried: one line on a terminal, lines elsewhere, or nothing."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

__all__ = ["progress"]

Told = Callable[[str, int, int], None]
"""What is tried, how many runs are done, of how many."""


@contextlib.contextmanager
def progress(*, silent: bool) -> Iterator[Told]:
    """A line that changes on a terminal; else one for each thing that is tried."""
    if silent:
        yield lambda _what, _done, _total: None
        return
    if not sys.stderr.isatty():
        yield _line
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting …") as status:
        yield lambda what, done, total: status.update(f"{what}: {done:,} of {total:,} …")


def _line(what: str, done: int, total: int) -> None:
    if done >= total:
        click.echo(f"{what}: {total:,} runs", err=True)
