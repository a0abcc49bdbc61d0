"""What a person sees while a query runs: one line that goes away."""

import contextlib
import sys
from collections.abc import Callable, Iterator

__all__ = ["progress"]

Told = Callable[[str, float | None], None]


@contextlib.contextmanager
def progress(*, silent: bool) -> Iterator[Told | None]:
    """A line on the terminal of standard error, told what goes on; None where nobody looks."""
    if silent or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("starting …") as status:
        yield lambda stage, percent: status.update(
            f"{stage} … {percent:.0f} %" if percent is not None else f"{stage} …"
        )
