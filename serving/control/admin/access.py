"""Who may use the admin port, and from where.

Verbs that change what is served always need the role `admin`, labels `operator`. Reading is open
on loopback as long as no tokens are configured, and needs `operator` otherwise. A browser is kept
from being made an accomplice: the Host must be ours (a rebound name is not), and a verb with a
foreign Origin is refused.
"""

import ipaddress
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from serving.config.identity import (
    ANONYMOUS,
    IdentityTable,
    TokenTable,
    hash_token,
    new_token,
    require,
)
from serving.config.load import load_tokens
from serving.config.schema import TokenEntry
from serving.errors import InvalidConfig, InvalidRequest, PermissionDenied
from serving.files import stamp, write_whole
from serving.types import Principal

__all__ = ["ADMIN_TOKEN_NAME", "Access", "check_host", "check_origin", "ensure_admin_token"]

ADMIN_TOKEN_NAME: Final = "admin-token"  # noqa: S105 - the name of its holder in audits
Need = Literal["open", "read", "operator", "admin"]
_LOG = logging.getLogger("control")


def ensure_admin_token(path: Path) -> str:
    """Read the token of the first start, or make it; only its owner may read the file.

    Raises:
        InvalidConfig: others may read it, it belongs to somebody else, or it is empty.
    """
    if not path.exists():
        with suppress(FileExistsError):  # another process was faster; its token counts
            write_whole(path, new_token().encode() + b"\n", mode=0o600, exclusive=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid != os.geteuid():
            raise InvalidConfig(
                "admin.token in the data directory may be read by others; run `chmod 600` on it, "
                "or delete it to have a new one made"
            )
        token = file.read(4096).decode("utf-8", "surrogateescape").strip()
    if not token:
        raise InvalidConfig("admin.token in the data directory is empty; delete it")
    return token


class Access:
    """The tokens of `auth.tokens` and the one in the data directory.

    Args:
        admin_token: always an admin.
        tokens: the file that `auth.tokens` names, None where none is configured.
        loopback: whether only this machine reaches the listener.

    An edited token file is taken over by `refresh`; one with mistakes leaves the known tokens
    in force.
    """

    def __init__(self, *, admin_token: str, tokens: Path | None, loopback: bool) -> None:
        self._own = TokenEntry(
            name=ADMIN_TOKEN_NAME, sha256=hash_token(admin_token), roles=["admin"]
        )
        self._tokens = tokens
        self._open_reads = loopback and tokens is None
        self._stamp = stamp(tokens) if tokens is not None else None
        self._table = self._read_table()

    def _read_table(self) -> IdentityTable:
        entries = load_tokens(self._tokens).tokens if self._tokens is not None else []
        return TokenTable.from_entries([*entries, self._own])

    def refresh(self) -> None:
        """Take over an edited token file."""
        seen = stamp(self._tokens) if self._tokens is not None else None
        if seen is None or seen == self._stamp:
            return
        self._stamp = seen
        try:
            self._table = self._read_table()
        except InvalidConfig as error:
            _LOG.error("the edited token file is not used: %s", error.message)
        else:
            _LOG.info("tokens read again")

    def identify(self, authorization: str | None, need: Need) -> Principal:
        """Name the caller. Raises Unauthenticated: no known credential where one is needed."""
        if need == "open" or (need == "read" and self._open_reads and authorization is None):
            return ANONYMOUS
        return self._table.identify(authorization)

    def allow(self, principal: Principal, need: Need) -> None:
        """Raise PermissionDenied unless the caller may."""
        if need == "admin":
            require(principal, "admin")
        elif need == "operator" or (need == "read" and not self._open_reads):
            require(principal, "operator")


def check_host(hosts: list[str], configured: str) -> str:
    """Accept an address, `localhost` or the configured name; give it back.

    A page on another name that is made to resolve to this machine still sends its own name.

    Args:
        hosts: every Host header of the request.
        configured: the host that `listen.admin` names.

    Raises:
        InvalidRequest: none, or several. PermissionDenied: a name that is not ours.
    """
    if len(hosts) != 1:
        raise InvalidRequest("exactly one Host header is needed")
    name = _host_name(hosts[0])
    if name in ("localhost", configured.lower().rstrip(".")) or _is_address(name):
        return hosts[0]
    raise PermissionDenied("this Host is not served here; use the address or `localhost`")


def check_origin(origins: list[str], host: str, *, tls: bool) -> None:
    """Refuse a verb sent by a page of another origin. Raises PermissionDenied."""
    own = f"{'https' if tls else 'http'}://{host}".lower()
    if any(origin.lower() != own for origin in origins):
        raise PermissionDenied("requests from pages of another origin are refused")


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
