"""`sluice status`: what runs, what it serves, and who is in trouble."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from serving.cli.output import Output, Unreachable, output_options

if TYPE_CHECKING:
    from serving.control.answers import Status
    from serving.engine.inspection import ProcessStatus
    from serving.engine.report import EngineReport

__all__ = ["Overview", "status"]

_DEFAULT_ADMIN: Final = "http://127.0.0.1:8002"
_ASK_SECONDS: Final = 3.0


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice status --json` prints.

    `engine` and `processes` are there if an engine runs on this machine's data directory,
    `control` if the control process answers; `control_problem` says why it does not.
    """

    engine: "EngineReport | None" = None
    processes: "list[ProcessStatus]" = []
    control: "Status | None" = None
    control_problem: str = ""


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
    if data is not None and admin is not None and _given("admin"):
        raise click.UsageError("--data and --admin name the gateway twice; give one of them")
    folder = _data_directory(data) if data is not None or admin is None else None
    overview = _of_data(folder, data) if folder is not None else _of_admin(admin or _DEFAULT_ADMIN)
    output.answer(overview, lambda: _tables(overview))


def _given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _data_directory(wanted: Path | None) -> Path | None:
    """The directory with `run/` in it; None if none was asked for and there is none here."""
    inside = (wanted or Path()) / ".sluice"
    if inside.is_dir():
        return inside
    return wanted


def _of_data(folder: Path, wanted: Path | None) -> Overview:
    from serving.cli.admin_status import fetch_status, local_admin
    from serving.engine.inspection import inspect

    seen = asyncio.run(inspect(folder))
    if seen is None:
        raise Unreachable(
            f"no gateway runs on {folder}",
            hint=f"`sluice up {wanted or 'DIR'}` starts one; `--admin URL` asks one elsewhere",
        )
    report, processes = seen
    try:
        control = fetch_status(local_admin(report, folder), timeout_seconds=_ASK_SECONDS)
    except Unreachable as error:
        return Overview(engine=report, processes=processes, control_problem=error.message)
    return Overview(engine=report, processes=processes, control=control)


def _of_admin(url: str) -> Overview:
    from serving.cli.admin_status import AdminAddress, fetch_status

    return Overview(control=fetch_status(AdminAddress(url=url), timeout_seconds=_ASK_SECONDS))


def _tables(overview: Overview) -> object:
    from serving.cli.status_tables import render

    return render(overview)
