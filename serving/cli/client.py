"""Talking to the admin port of the gateway that a command means."""

import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from serving.cli.admin_status import AdminAddress, local_admin
from serving.cli.output import CommandError, Unreachable
from serving.cli.where import DEFAULT_ADMIN, Where
from serving.engine.report import EngineReport, read_report
from serving.errors import InvalidConfig

__all__ = [
    "AdminClient",
    "explain",
    "message_of",
    "running_engine",
    "trust",
]

_SECONDS: Final = 90.0
"""Longer than any wait the admin port itself would do."""

T = TypeVar("T")


def running_engine(data: Path | None) -> EngineReport | None:
    """What the engine on a data directory wrote, if it still runs."""
    report = read_report(data / "run" / "engine.json") if data is not None else None
    return report if report is not None and report.alive else None


def trust(authority: Path | None) -> ssl.SSLContext | bool:
    """Whom to believe: the system's authorities, or this one certificate."""
    return True if authority is None else ssl.create_default_context(cafile=authority)


def explain(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)


def message_of(answer: httpx.Response) -> str:
    """The text of an error answer; empty if it is not one of a gateway."""
    try:
        return str(msgspec.json.decode(answer.content)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""


class AdminClient:
    """Calls the admin port; a context manager.

    Args:
        where: the command's options.
        near: a configuration directory whose gateway is meant if the options name none.

    Raises:
        Unreachable: there is no gateway (exit 3).
    """

    def __init__(self, where: Where, near: Path | None = None) -> None:
        self._admin = _find(where, near)
        if urlsplit(self._admin.url).scheme not in {"http", "https"}:
            raise Unreachable(
                f"`{self._admin.url}` is not an address",
                hint="write http://HOST:PORT or https://HOST:PORT",
            )
        token = where.token() or self._admin.token
        https = self._admin.url.startswith("https:")
        self._http = httpx.Client(
            base_url=self._admin.url,
            headers={"authorization": f"Bearer {token}"} if token else {},
            verify=trust(self._admin.authority) if https else False,
            timeout=_SECONDS,
            trust_env=False,  # a proxy for the world outside must not see loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def post(self, path: str, body: Any, kind: type[T]) -> T:
        """Call a verb and decode its answer.

        Raises:
            Unreachable: nobody answers, or not as a gateway does.
            InvalidConfig: the gateway refuses a configuration; `problems` are its own words.
            CommandError: it refuses for another reason.
        """
        try:
            answer = self._http.post(
                path,
                content=msgspec.json.encode(body),
                headers={"content-type": "application/json"},
            )
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unreachable(
                f"the control process at {self._admin.url} does not answer: {explain(error)}",
                hint="`sluice up DIR` starts a gateway; `--admin URL` asks another one",
            ) from error
        if answer.status_code != 200:
            raise _refusal(answer, self._admin.url)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise Unreachable(
                f"{self._admin.url} answers, but not as this release's admin port does",
                hint="the admin port is 8002 unless `listen.admin` says otherwise",
            ) from error


def _find(where: Where, near: Path | None) -> AdminAddress:
    if where.admin is not None and where.data is None:
        return AdminAddress(url=where.admin)
    data = where.data_directory(near)
    report = running_engine(data)
    if data is not None and report is not None:
        return local_admin(report, data)
    if where.data is not None:
        raise Unreachable(
            f"no gateway runs on {data}",
            hint="`sluice up DIR` starts one; `--admin URL` asks one elsewhere",
        )
    return AdminAddress(url=DEFAULT_ADMIN)


def _refusal(answer: httpx.Response, url: str) -> CommandError | InvalidConfig:
    message = message_of(answer)
    if not message:
        return Unreachable(
            f"{url} answers, but not as a gateway's admin port does ({answer.status_code})",
            hint="the admin port is 8002 unless `listen.admin` says otherwise",
        )
    if answer.status_code in {401, 403}:
        return CommandError(
            message,
            hint="this needs a token with the role `admin`: --token-file, $SLUICE_TOKEN, or "
            "`--data` with the gateway's data directory",
        )
    if answer.status_code == 409:
        return CommandError(message, hint="`sluice plan DIR` shows what would change now")
    problems = msgspec.json.decode(answer.content).get("problems")
    if problems:
        return InvalidConfig(message, tuple(problems))
    return CommandError(message)
