"""`sluice status`: what runs, what it serves, and who is in trouble."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from serving.cli.output import Output, output_options

if TYPE_CHECKING:
    from serving.cli.overview import Overview

__all__ = ["status"]

_DEFAULT_ADMIN: Final = "http://127.0.0.1:8002"


@click.command(short_help="Show workers, models and revisions of the running gateway.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Data directory of the gateway, or the configuration directory it is in "
    "[default: .sluice here, if there is one].",
)
@click.option(
    "--admin",
    metavar="URL",
    envvar="SLUICE_ADMIN",
    help=f"Admin address of a gateway anywhere [default: {_DEFAULT_ADMIN}].",
)
@output_options
def status(*, data: Path | None, admin: str | None, output: Output) -> None:
    """Show the gateway's processes, workers, models and versions.

    With a data directory the processes are shown even if the control process does not answer.
    Where reading needs a credential, it is taken from $SLUICE_TOKEN, or from the data directory.
    Exits with 3 if no gateway runs there.

    \b
    Examples:
      sluice status --data configs/demo
      sluice status --admin http://gateway.example:8002
      sluice status --json | jq .processes
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.overview import of_admin, of_data

    if data is not None and admin is not None and _given("admin"):
        raise click.UsageError("--data and --admin name the gateway twice; give one of them")
    folder = _data_directory(data) if data is not None or admin is None else None
    seen = of_data(folder, data) if folder is not None else of_admin(admin or _DEFAULT_ADMIN)
    output.answer(seen, lambda: _tables(seen))


def _given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _data_directory(wanted: Path | None) -> Path | None:
    """The directory with `run/` in it; None if none was asked for and there is none here."""
    inside = (wanted or Path()) / ".sluice"
    if inside.is_dir():
        return inside
    return wanted


def _tables(overview: "Overview") -> object:
    from serving.cli.status_tables import render

    return render(overview)
