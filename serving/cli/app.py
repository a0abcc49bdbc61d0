"""The command group: a table of commands, none of which is imported before it is needed.

`sluice --help` prints the table's own words. A row whose module is not part of this
installation is left out, so a build may ship fewer commands.
"""

import importlib
import importlib.util
import sys
from collections.abc import MutableMapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NoReturn

import click

from serving.cli import output
from serving.cli.output import ExitCode
from serving.errors import SluiceError

__all__ = ["COMMANDS", "LazyGroup", "app"]

COMMANDS: Final[dict[str, str]] = {
    "up": "Start the store, the workers and the control process.",
    "check": "Say everything that is wrong with a configuration directory.",
    "plan": "Show what `apply` would change in the running gateway.",
    "apply": "Make the running gateway serve this configuration.",
    "roll": "Replace workers and control by the code on disk, losing no request.",
    "status": "Show workers, models and revisions of the running gateway.",
    "infer": "Ask a model, from the command line.",
    "rollout": "Show and steer how a new version becomes production.",
    "quarantine": "Show versions that crashed workers, and let one back.",
    "features": "Load, show and erase online features.",
    "log": "Read, check, erase and ship the prediction log.",
    "labels": "Say what came true of predictions.",
    "performance": "Show how well a model does, by the labels it has.",
    "drift": "Compare traffic with what was frozen, in words, tables and a page.",
    "retraining": "Show and steer requests for training.",
    "candidate": "Add a newly trained model file as a shadow.",
    "simulate": "Try a policy on a recorded or made-up load.",
    "loadtest": "Send requests on a schedule and judge the answers.",
    "tokens": "Make credentials for callers.",
}
"""Command name to short help. `NAME` lives in `serving.cli.NAME` as a click command `NAME`."""


class LazyGroup(click.Group):
    """A click group over a table of commands in the package `package`.

    It is also the one place where errors become words on standard error and an exit code.
    """

    def __init__(
        self, *args: Any, table: dict[str, str], package: str = "serving.cli", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names whose module exists, in the table's order."""
        del ctx
        return [name for name in self._table if importlib.util.find_spec(self._module(name))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(self._module(cmd_name)), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list from the table, importing nothing."""
        if rows := [(name, self._table[name]) for name in self.list_commands(ctx)]:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one."""
        name, known_names = args[0], self.list_commands(ctx)
        if not name.startswith("-") and name not in known_names:
            near = get_close_matches(name, known_names, n=1)
            suggestion = f"; did you mean `{near[0]}`?" if near else ""
            raise click.UsageError(f"no command `{name}`{suggestion}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error raised on purpose becomes a message and an exit code."""
        try:
            return super().invoke(ctx)
        except SluiceError as error:
            output.report(error, verbose=output.is_verbose(ctx))
            ctx.exit(output.exit_code(error))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Parse and run; wrong usage exits 2, Ctrl-C 130, a declined question 1."""
        name = prog_name or "sluice"
        if not standalone_mode:
            return super().main(args, name, complete_var, False, **extra)
        try:
            code = super().main(args, name, complete_var, False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.message, err=True)
            sys.exit(ExitCode.USAGE)
        except click.UsageError as error:
            _exit_with_usage(error)
        except click.ClickException as error:
            output.print_error(error.format_message())
            sys.exit(error.exit_code)
        except click.Abort as abort:
            interrupted = isinstance(abort.__context__, KeyboardInterrupt)
            output.print_error("interrupted" if interrupted else "stopped; nothing was changed")
            sys.exit(ExitCode.INTERRUPTED if interrupted else ExitCode.NO)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)

    def _module(self, name: str) -> str:
        return f"{self._package}.{name}"


def _exit_with_usage(error: click.UsageError) -> NoReturn:
    where = error.ctx.command_path if error.ctx else "sluice"
    output.print_error(error.format_message(), hint=f"`{where} --help` shows how it is used")
    sys.exit(ExitCode.USAGE)


_CONTEXT: Final[MutableMapping[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
}


@click.group(
    "sluice",
    cls=LazyGroup,
    table=COMMANDS,
    context_settings=_CONTEXT,
    epilog="Exit codes: 0 ok · 1 the answer is no · 2 wrong usage · 3 no gateway answers",
)
@click.version_option(package_name="sluice-gateway", prog_name="sluice")
def app() -> None:
    """Sluice serves ONNX models over the Open Inference Protocol, by a plan written in YAML.

    \b
    Examples:
      sluice up configs/demo            start everything on this machine
      sluice check configs/demo         find mistakes before they are served
      sluice apply configs/demo         change what is running
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
