"""How commands speak: answers on standard output, everything else on standard error.

A command takes `--json` and `-v` through `@output_options` and gets an `Output`. Colours
appear only on a terminal and never under NO_COLOR.
"""

import enum
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from serving.errors import InvalidConfig, SluiceError, StoreUnavailable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "CommandError",
    "ExitCode",
    "Output",
    "Unreachable",
    "exit_code",
    "is_verbose",
    "output_options",
    "plain_table",
    "print_error",
    "report",
]

_VERBOSE = "sluice.verbose"
_FILE_WIDTH = 250
_Callback = TypeVar("_Callback", bound=Callable[..., Any])


class ExitCode(enum.IntEnum):
    """What the shell sees."""

    OK = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class CommandError(SluiceError):
    """The answer is no (exit 1). `hint` says what to try next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Unreachable(CommandError):
    """No gateway answers where one was expected (exit 3)."""


def exit_code(error: SluiceError) -> ExitCode:
    """The exit code an error costs."""
    if isinstance(error, (Unreachable, StoreUnavailable)):
        return ExitCode.UNREACHABLE
    return ExitCode.NO


class Output:
    """Where a command's answer goes.

    With `json` the answer is one JSON document on standard output and `say` is silent, so
    the two never mix. Messages about progress go to standard error in both modes.
    """

    def __init__(self, *, json: bool = False, verbose: bool = False) -> None:
        self.json = json
        self.verbose = verbose

    def answer(self, value: object, human: Callable[[], object] | None = None) -> None:
        """Print the answer: `value` as JSON, or what `human()` returns (a str or rich table).

        Structs, datetimes, durations and sizes of the configuration are converted. Without
        `human`, or when it returns None, a person is shown nothing (say it yourself).
        """
        if self.json:
            self.machine(value)
        elif human is not None and (shown := human()) is not None:
            self.say(shown)

    def machine(self, value: object) -> None:
        """Print one JSON document, indented, keys in the order given."""
        import msgspec
        import orjson

        plain = msgspec.to_builtins(value, enc_hook=str, str_keys=True)
        click.echo(orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode())

    def say(self, shown: object = "") -> None:
        """Print for people, on standard output; nothing with `--json`."""
        if not self.json:
            _print(shown, stderr=False)

    def note(self, text: str) -> None:
        """Print progress for people, on standard error; nothing with `--json`."""
        if not self.json:
            _print(text, stderr=True)

    def detail(self, text: str) -> None:
        """Print on standard error, only with `-v`."""
        if self.verbose:
            _print(text, stderr=True)


def plain_table(*columns: str) -> "Table":
    """A table of aligned columns without lines, as every command prints them."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def output_options(callback: _Callback) -> _Callback:
    """Add `--json` and `-v/--verbose` and pass an `Output` as the keyword `output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more, on standard error.")
    @functools.wraps(callback)
    def wrapped(*args: Any, as_json: bool, verbose: bool, **kwargs: Any) -> Any:
        click.get_current_context().meta[_VERBOSE] = verbose
        return callback(*args, output=Output(json=as_json, verbose=verbose), **kwargs)

    return wrapped  # type: ignore[return-value]


def is_verbose(ctx: click.Context) -> bool:
    """Whether the command that ran under `ctx` was given `-v`."""
    return bool(ctx.meta.get(_VERBOSE, False))


def print_error(message: str, hint: str = "") -> None:
    """Print `error: message` and, on its own line, `hint: …` on standard error."""
    from rich.text import Text

    _print(Text.assemble(("error: ", "bold red"), message), stderr=True)
    if hint:
        _print(Text.assemble(("hint: ", "bold cyan"), hint), stderr=True)


def report(error: SluiceError, *, verbose: bool = False) -> None:
    """Tell a person about an error: every problem of a configuration, its hint, no traceback.

    With `verbose` the errors underneath are named too.
    """
    message = error.message
    if isinstance(error, InvalidConfig) and error.problems:
        for problem in error.problems:
            _print(str(problem), stderr=True)
        message = "the configuration has mistakes; nothing was changed"
    print_error(message, getattr(error, "hint", ""))
    cause = error.__cause__
    while verbose and cause is not None:
        _print(f"caused by {type(cause).__name__}: {cause}", stderr=True)
        cause = cause.__cause__


def _print(shown: object, *, stderr: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    # Text from files and servers is data: no markup, no guessed colours, no re-wrapping.
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _FILE_WIDTH  # nobody looks at its edge: cut nothing off
    console.print(shown, soft_wrap=isinstance(shown, (str, Text)) or None)
