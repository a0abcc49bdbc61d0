"""Where the control process is that a command means."""

from pathlib import Path

import msgspec
from msgspec.structs import replace

from serving.cli.output import Unreachable
from serving.cli.tls import ClientTls
from serving.cli.where import DEFAULT_ADMIN, Where
from serving.config.addresses import listener_parts, parse_address
from serving.config.load import load_gateway
from serving.engine.ports import reachable, written
from serving.engine.report import Addresses, EngineReport, read_report
from serving.errors import InvalidConfig

__all__ = ["AdminAddress", "find_admin", "local_admin", "local_listener", "running_engine"]


class AdminAddress(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is a credential to use where the command was given none."""

    url: str
    tls: ClientTls = ClientTls()
    token: str = ""


def running_engine(data: Path | None) -> EngineReport | None:
    """What the engine on a data directory wrote, if it still runs."""
    report = read_report(data / "run" / "engine.json") if data is not None else None
    return report if report is not None and report.alive else None


def find_admin(where: Where, near: Path | None = None) -> AdminAddress:
    """The admin address that the options name, else the one on this machine.

    Args:
        where: the command's options.
        near: a configuration directory whose gateway is meant if the options name none.

    Raises:
        Unreachable: no gateway runs on the data directory that was named.
    """
    if where.admin is not None and where.data is None:
        return AdminAddress(url=where.admin, tls=where.tls)
    data = where.data_directory(near)
    report = running_engine(data)
    if data is not None and report is not None:
        return local_admin(report, data, where.tls)
    if where.data is not None:
        raise Unreachable(
            f"no gateway runs on {data}",
            hint="`sluice up DIR` starts one; `--admin URL` asks one elsewhere",
        )
    return AdminAddress(url=DEFAULT_ADMIN, tls=where.tls)


def local_admin(report: EngineReport, data: Path, tls: ClientTls) -> AdminAddress:
    """The admin address of an engine on this machine, with what its directories offer."""
    address, pinned = local_listener(report, "admin", tls)
    return AdminAddress(
        url=f"{'http' if pinned is None else 'https'}://{address}",
        tls=pinned if pinned is not None else tls,
        token=_first_line(data / "admin.token"),
    )


def local_listener(report: EngineReport, name: str, tls: ClientTls) -> tuple[str, ClientTls | None]:
    """`host:port` of one of an engine's listeners, and how to speak TLS there; None: it does not.

    Args:
        report: the engine's.
        name: `http`, `grpc` or `admin`.
        tls: what the command was given.
    """
    assert name in Addresses.__struct_fields__
    configuration = Path(report.configuration)
    try:
        _, files = listener_parts(getattr(load_gateway(configuration).listen, name))
    except InvalidConfig:  # somebody is editing it; plaintext is what most listeners speak
        files = None
    address = written(reachable(parse_address(getattr(report.addresses, name))))
    return address, replace(tls, pinned=configuration / files.cert) if files else None


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
