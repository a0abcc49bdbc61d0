"""Talking to the admin port of the gateway that a command means."""

from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from serving.cli.admin_address import AdminAddress
from serving.cli.output import CommandError, Unreachable
from serving.cli.tls import ClientTls
from serving.errors import InvalidConfig

__all__ = ["AdminClient", "Refused", "explain", "http_client", "message_of"]

_SECONDS: Final = 90.0
"""Longer than any wait the admin port itself would do."""

T = TypeVar("T")


def http_client(url: str, *, token: str, tls: ClientTls, seconds: float) -> httpx.Client:
    """A client of one listener that waits `seconds` at most. Raises CommandError for TLS files."""
    return httpx.Client(
        base_url=url,
        headers={"authorization": f"Bearer {token}"} if token else {},
        # Loading the system's authorities costs 20 ms, for nothing where there is no TLS.
        verify=tls.context() if url.startswith("https:") else False,
        timeout=seconds,
        trust_env=False,  # a proxy for the world outside must not see loopback
    )


def explain(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    return "no answer in time" if isinstance(error, httpx.TimeoutException) else str(error)


def message_of(answer: httpx.Response) -> str:
    """The text of an error answer; empty if it is not one of a gateway."""
    try:
        return str(msgspec.json.decode(answer.content)["error"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""


class Refused(CommandError):
    """The admin port's answer is no; `status` is the one of HTTP."""

    def __init__(self, message: str, hint: str = "", *, status: int) -> None:
        super().__init__(message, hint)
        self.status = status


class AdminClient:
    """Calls the admin port; a context manager.

    Args:
        admin: where it is.
        token: the credential given by option or environment; empty: the address's own.
        seconds: how long an answer may take.

    Raises:
        Unreachable: that is no address.
    """

    def __init__(self, admin: AdminAddress, token: str, *, seconds: float = _SECONDS) -> None:
        self._url, self._tls = admin.url, admin.tls
        if urlsplit(admin.url).scheme not in {"http", "https"}:
            raise Unreachable(
                f"`{admin.url}` is not an address",
                hint="write http://HOST:PORT or https://HOST:PORT",
            )
        self._http = http_client(
            admin.url, token=token or admin.token, tls=admin.tls, seconds=seconds
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

    def get(self, path: str, kind: type[T]) -> T:
        """Read, and decode the answer. Raises Unreachable, CommandError."""
        return self._decoded(self._ask("GET", path), kind, role="operator")

    def post(self, path: str, body: Any, kind: type[T], *, role: str = "admin") -> T:
        """Call a verb and decode its answer; `role` is what it needs, for the words of a refusal.

        Raises:
            Unreachable: nobody answers, or not as a gateway does.
            InvalidConfig: the gateway refuses a configuration; `problems` are its own words.
            CommandError: it refuses for another reason.
        """
        answer = self._ask("POST", path, msgspec.json.encode(body))
        return self._decoded(answer, kind, role=role)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> httpx.Response:
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            return self._http.request(method, path, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = explain(error)
            raise Unreachable(
                f"the control process at {self._url} does not answer: {reason}",
                hint=_hint(self._url, self._tls, reason),
            ) from error

    def _decoded(self, answer: httpx.Response, kind: type[T], *, role: str) -> T:
        if answer.status_code != 200:
            raise _refusal(answer, self._url, role)
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise _not_ours(self._url, answer.status_code) from error


def _hint(url: str, tls: ClientTls, reason: str) -> str:
    otherwise = "`sluice up DIR` starts a gateway; `--admin URL` asks another one"
    return tls.hint(reason, otherwise) if url.startswith("https:") else otherwise


def _refusal(answer: httpx.Response, url: str, role: str) -> CommandError | InvalidConfig:
    message = message_of(answer)
    if not message:
        return _not_ours(url, answer.status_code)
    if answer.status_code in {401, 403}:
        return Refused(
            message,
            hint=f"this needs a token with the role `{role}`: --token-file, $SLUICE_TOKEN, or "
            "`--data` with the gateway's data directory",
            status=answer.status_code,
        )
    if answer.status_code == 409:
        return Refused(message, hint="`sluice plan DIR` shows what would change now", status=409)
    problems = msgspec.json.decode(answer.content).get("problems")
    if problems:
        return InvalidConfig(message, tuple(problems))
    return Refused(message, status=answer.status_code)


def _not_ours(url: str, status: int) -> Unreachable:
    return Unreachable(
        f"{url} answers, but not as a gateway's admin port does ({status})",
        hint="the admin port is 8002 unless `listen.admin` says otherwise",
    )
