"""Asking a control process for its status over the admin port."""

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from serving.cli.output import Unreachable
from serving.config.addresses import listener_parts, parse_address
from serving.config.load import load_gateway
from serving.control.answers import Status
from serving.engine.ports import reachable, written
from serving.engine.report import EngineReport
from serving.errors import InvalidConfig

__all__ = ["AdminAddress", "fetch_status", "local_admin"]


class AdminAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where control is.

    `authority` is a certificate to trust instead of the system's, `token` a credential to use
    where $SLUICE_TOKEN holds none.
    """

    url: str
    authority: Path | None = None
    token: str = ""


def local_admin(report: EngineReport, data: Path) -> AdminAddress:
    """The admin address of an engine on this machine, with what its directories offer."""
    configuration = Path(report.configuration)
    try:
        _, tls = listener_parts(load_gateway(configuration).listen.admin)
    except InvalidConfig:  # somebody is editing it; plain HTTP is what most listeners speak
        tls = None
    where = written(reachable(parse_address(report.addresses.admin)))
    return AdminAddress(
        url=f"{'https' if tls else 'http'}://{where}",
        authority=configuration / tls.cert if tls else None,
        token=_first_line(data / "admin.token"),
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def fetch_status(admin: AdminAddress, *, timeout_seconds: float) -> Status:
    """Ask once.

    Raises:
        Unreachable: Nobody answers in time, or not as a gateway does. The message names the
            address, the hint says what to try.
    """
    if urlsplit(admin.url).scheme not in {"http", "https"}:
        raise Unreachable(
            f"`{admin.url}` is not an address", hint="write http://HOST:PORT or https://HOST:PORT"
        )
    token = os.environ.get("SLUICE_TOKEN") or admin.token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(
            f"{admin.url.rstrip('/')}/api/v1/status",
            headers=headers,
            timeout=timeout_seconds,
            verify=_trust(admin),
            trust_env=False,  # a proxy for the world outside must not see loopback
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unreachable(
            f"the control process at {admin.url} does not answer: {_reason(error)}",
            hint="`sluice up DIR` starts a gateway; `--admin URL` asks another one",
        ) from error
    if answer.status_code in {401, 403}:
        raise Unreachable(
            f"{admin.url} wants a credential to be read",
            hint="put a token with the role `operator` into $SLUICE_TOKEN",
        )
    try:
        if answer.status_code == 200:
            return msgspec.json.decode(answer.content, type=Status)
    except (msgspec.DecodeError, msgspec.ValidationError):
        pass
    raise Unreachable(
        f"{admin.url} answers, but not as a gateway's admin port does ({answer.status_code})",
        hint="the admin port is 8002 unless `listen.admin` says otherwise",
    )


def _trust(admin: AdminAddress) -> ssl.SSLContext | bool:
    if not admin.url.startswith("https:"):
        return False  # nothing to verify, and loading the system's store takes 20 ms
    if admin.authority is None:
        return True
    return ssl.create_default_context(cafile=admin.authority)


def _reason(error: Exception) -> str:
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)
