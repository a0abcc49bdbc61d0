"""What `sluice status` knows: the engine's word, its processes' own, and control's."""

import asyncio
from typing import Final

import msgspec

from serving.cli.admin_address import AdminAddress, local_admin
from serving.cli.client import AdminClient
from serving.cli.output import CommandError, Unreachable
from serving.cli.where import DEFAULT_ADMIN, Where
from serving.control.admin.answers import Status
from serving.engine.inspection import ProcessStatus, inspect
from serving.engine.report import EngineReport

__all__ = ["Overview", "look"]

_ASK_SECONDS: Final = 3.0


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice status --json` prints.

    `engine` and `processes` are there if an engine runs on this machine's data directory,
    `control` if the control process answers; `control_problem` says why it does not.
    """

    engine: EngineReport | None = None
    processes: list[ProcessStatus] = []
    control: Status | None = None
    control_problem: str = ""


def look(where: Where) -> Overview:
    """Look at the engine on a data directory, if one is meant, and ask the control process.

    Raises:
        Unreachable: no engine runs there, or no control process answers at the address.
        CommandError: it answers, but not to us.
    """
    remote = where.admin is not None and where.data is None
    folder = None if remote else where.data_directory()
    if folder is None:
        admin = AdminAddress(url=where.admin or DEFAULT_ADMIN, tls=where.tls)
        return Overview(control=_ask(admin, where))
    seen = asyncio.run(inspect(folder))
    if seen is None:
        raise Unreachable(
            f"no gateway runs on {folder}",
            hint=f"`sluice up {where.data or 'DIR'}` starts one; `--admin URL` asks one elsewhere",
        )
    report, processes = seen
    try:
        control = _ask(local_admin(report, folder, where.tls), where)
    except CommandError as error:
        problem = ". ".join(filter(None, (error.message, error.hint)))
        return Overview(engine=report, processes=processes, control_problem=problem)
    return Overview(engine=report, processes=processes, control=control)


def _ask(admin: AdminAddress, where: Where) -> Status:
    with AdminClient(admin, where.token(), seconds=_ASK_SECONDS) as client:
        return client.get("/api/v1/status", Status)
