"""Listener addresses as written in `gateway.yaml`; nothing is resolved or bound here."""

import ipaddress

import msgspec

from serving.config.schema import Listener, TlsConfig

__all__ = ["Address", "listener_parts", "parse_address"]


class Address(msgspec.Struct, frozen=True):
    """A host name or IP address (IPv6 without its brackets) and a port from 0 to 65535."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than `localhost` cannot tell."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every interface of the machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    def overlaps(self, other: "Address") -> bool:
        """Whether binding both would fail. Port 0 never collides; two names might, so they do."""
        if self.port != other.port or self.port == 0:
            return False
        if self.is_wildcard or other.is_wildcard:
            return True
        try:
            return ipaddress.ip_address(self.host) == ipaddress.ip_address(other.host)
        except ValueError:
            return True


def parse_address(text: str) -> Address:
    """Read `host:port` or `[ipv6]:port`. Raises ValueError with what is wrong."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets: `[::1]:8000`")
    if not colon:
        raise ValueError("expected `host:port`, such as `127.0.0.1:8000`")
    if not host:
        raise ValueError("the host is missing; `0.0.0.0` would stand for every interface")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65_535):
        raise ValueError("the port must be a number from 0 to 65535")
    if host != host.strip() or any(character in host for character in "/@[]?#"):
        raise ValueError("expected `host:port` and nothing else")
    return Address(host, int(port))


def listener_parts(listener: str | Listener) -> tuple[str, TlsConfig | None]:
    """A listener's address as written, and its TLS files, in either of its two spellings."""
    if isinstance(listener, Listener):
        return listener.address, listener.tls
    return listener, None
