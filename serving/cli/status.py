"""`sluice status`: what runs, what it serves, and who is in trouble."""

from typing import TYPE_CHECKING

import click

from serving.cli.output import Output, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from serving.cli.overview import Overview

__all__ = ["status"]


@click.command(short_help="Show workers, models and revisions of the running gateway.")
@gateway_options
@output_options
def status(*, where: Where, output: Output) -> None:
    """Show the gateway's processes, workers, models and versions.

    With a data directory the processes are shown even if the control process does not answer.
    Where reading needs a credential, it must have the role `operator`. Exits with 3 if no
    gateway runs there.

    \b
    Examples:
      sluice status --data configs/demo
      sluice status --admin http://127.0.0.1:8002
      sluice status --data configs/demo --json | jq .processes
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.overview import look

    if where.data is not None and where.admin is not None and _given("admin"):
        raise click.UsageError("--data and --admin name the gateway twice; give one of them")
    seen = look(where)
    output.answer(seen, lambda: _tables(seen))


def _given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _tables(overview: "Overview") -> object:
    from serving.cli.status_tables import render

    return render(overview)
