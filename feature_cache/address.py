"""Store addresses: `redis://`, `rediss://` and `unix://` URLs, several hosts allowed.

    redis://user:password@host:6379,other:6379/0
    rediss://…?ca=/etc/ca.pem          TLS; the system's authorities unless `ca` names one
    unix:///run/store.sock?db=0

Several hosts are one store that may move: a connection goes to the first that says it is master.
"""

import ssl
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from feature_cache.errors import InvalidAddress

__all__ = ["Address"]

_PORT: Final = 6379


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed address. `hosts` is empty for a Unix socket at `path`."""

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tls: bool = False
    ca: str = ""

    def __repr__(self) -> str:
        place = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"Address({place})"

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read a URL.

        Raises:
            InvalidAddress: another scheme, no host or path, a port or database that is no number.
        """
        parts = urlsplit(url)
        login, at, place = parts.netloc.rpartition("@")
        username, _, password = login.partition(":") if at else ("", "", "")
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        username, password = unquote(username), unquote(password)
        if parts.scheme == "unix":
            path = unquote(place + parts.path)
            if not path:
                raise InvalidAddress("a unix:// address needs the path of a socket")
            db = _number(query.get("db", "0"), "database")
            return cls(path=path, db=db, username=username, password=password)
        if parts.scheme not in ("redis", "rediss"):
            raise InvalidAddress("a store's address begins with redis://, rediss:// or unix://")
        hosts = tuple(_host(one) for one in place.split(",") if one)
        if not hosts:
            raise InvalidAddress("the store's address names no host")
        return cls(
            hosts=hosts,
            db=_number(parts.path.strip("/") or query.get("db", "0"), "database"),
            tls=parts.scheme == "rediss",
            ca=query.get("ca", ""),
            username=username,
            password=password,
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """The client's side of TLS; None for a plaintext address. Raises OSError."""
        if not self.tls:
            return None
        return ssl.create_default_context(cafile=self.ca or None)


def _host(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):  # no port, or an IPv6 address without one
        host, port = text, str(_PORT)
    number = _number(port, "port")
    if not 0 < number < 1 << 16 or not host:
        raise InvalidAddress("a host of the store's address has no usable name or port")
    return host.strip("[]"), number


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InvalidAddress(f"the {what} in the store's address is no number")
    return int(text)
