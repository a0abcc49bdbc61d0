"""Where requests go: `http://127.0.0.1:8000`, `grpcs://gateway.example:8001`."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import msgspec

from serving.errors import SluiceError

if TYPE_CHECKING:
    import grpc

__all__ = ["InvalidTarget", "Target", "TargetUnreachable", "Tls", "parse_target"]

_PORTS: Final = {"http": 8000, "https": 8000, "grpc": 8001, "grpcs": 8001}


class InvalidTarget(SluiceError):
    """A target that is no address."""


class TargetUnreachable(SluiceError):
    """Nobody listens at the target; no request was sent."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Files in PEM. `ca` None: the system's authorities."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    partial_chain: bool = False
    """`ca` is the server's own certificate, and no authority's."""

    def context(self) -> ssl.SSLContext:
        """A client's context. Raises OSError, ssl.SSLError."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.partial_chain:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.cert is not None:
            context.load_cert_chain(self.cert, self.key)
        return context

    def grpc_credentials(self) -> "grpc.ChannelCredentials":
        """The same for gRPC. Raises OSError."""
        import grpc  # noqa: PLC0415 - a fifth of a second that HTTP need not wait

        read = [None if one is None else Path(one).read_bytes() for one in (self.ca, self.key)]
        chain = None if self.cert is None else Path(self.cert).read_bytes()
        return grpc.ssl_channel_credentials(read[0], read[1], chain)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A listener."""

    scheme: Literal["http", "https", "grpc", "grpcs"]
    host: str
    port: int

    @property
    def grpc(self) -> bool:
        """Whether it speaks gRPC; HTTP otherwise."""
        return self.scheme.startswith("grpc")

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.scheme in ("https", "grpcs")

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def parse_target(text: str) -> Target:
    """Read an address. Raises InvalidTarget."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidTarget(f"`{text}` is not an address: {error}") from error
    scheme = parts.scheme
    if scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query:
        raise InvalidTarget(
            f"`{text}` is not an address; write http://HOST:PORT, https://, grpc:// or grpcs://"
        )
    if parts.username is not None:
        raise InvalidTarget("an address holds no credential; put a token into $SLUICE_TOKEN")
    return msgspec.convert(
        {"scheme": scheme, "host": parts.hostname, "port": port or _PORTS[scheme]}, Target
    )
