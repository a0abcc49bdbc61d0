"""What `sluice status` knows: the engine's word, its processes' own, and control's."""

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from serving.cli.admin_status import AdminAddress, fetch_status, local_admin
from serving.cli.output import Unreachable
from serving.control.answers import Status
from serving.engine.inspection import ProcessStatus, inspect
from serving.engine.report import EngineReport

__all__ = ["Overview", "of_admin", "of_data"]

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


def of_data(folder: Path, wanted: Path | None) -> Overview:
    """Look at the engine on a data directory and ask its control process.

    Args:
        folder: the data directory.
        wanted: what the user named, for the hint.

    Raises:
        Unreachable: no engine runs there.
    """
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


def of_admin(url: str) -> Overview:
    """Ask a control process anywhere. Raises Unreachable."""
    return Overview(control=fetch_status(AdminAddress(url=url), timeout_seconds=_ASK_SECONDS))
