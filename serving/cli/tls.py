"""What a command shows of itself over TLS, and whom it believes."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from serving.cli.output import CommandError

if TYPE_CHECKING:
    import grpc

__all__ = ["ClientTls"]

_HUNG_UP: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE", "DISCONNECTED", "RESET", "SOCKET_CLOSED")
"""In TLS 1.3 a server judges our certificate after we think we are connected, so its refusal
looks like any other lost connection if its last words are lost too (RFC 8446, section 4.4.2.4)."""


class ClientTls(msgspec.Struct, frozen=True, kw_only=True):
    """The files that `--ca`, `--client-cert` and `--client-key` name.

    `pinned` is the certificate that a gateway on this machine was told to show: without `ca`
    it is believed itself, whoever issued it.
    """

    ca: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    """None: the key is in `client_cert`."""

    pinned: Path | None = None

    @property
    def authority(self) -> Path | None:
        """Whom to believe; None means the system's authorities."""
        return self.ca if self.ca is not None else self.pinned

    def context(self) -> ssl.SSLContext:
        """Make a client's context. Raises CommandError naming the option whose file is unfit."""
        try:
            context = ssl.create_default_context(cafile=self.authority)
        except (OSError, ssl.SSLError) as error:
            raise _unfit("--ca", self.authority, error, "certificates in PEM") from error
        if self.ca is None and self.pinned is not None:
            # The certificate is no authority's; Python 3.13 allows this by itself.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.client_cert is not None:
            try:
                context.load_cert_chain(self.client_cert, self.client_key)
            except (OSError, ssl.SSLError) as error:
                expected = "a certificate and its key in PEM"
                raise _unfit("--client-cert", self.client_cert, error, expected) from error
        return context

    def grpc_credentials(self) -> "grpc.ChannelCredentials":
        """The same for gRPC, which would name no file. Raises CommandError."""
        import grpc

        self.context()
        certificate, key = self.client_cert, self.client_key or self.client_cert
        return grpc.ssl_channel_credentials(
            root_certificates=self.authority.read_bytes() if self.authority else None,
            private_key=key.read_bytes() if key else None,
            certificate_chain=certificate.read_bytes() if certificate else None,
        )

    def hint(self, reason: str, otherwise: str) -> str:
        """What to try after a connection failed with these words."""
        reason = reason.upper().replace(" ", "_")
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return "`--ca FILE` names the authority that issued the gateway's certificate"
        if self.client_cert is None and any(words in reason for words in _HUNG_UP):
            return "the listener may want to see a client certificate: --client-cert FILE"
        return otherwise


def _unfit(option: str, file: Path | None, error: Exception, expected: str) -> CommandError:
    missing = isinstance(error, FileNotFoundError | PermissionError)
    reason = (
        error.strerror if missing and isinstance(error, OSError) else f"it must hold {expected}"
    )
    return CommandError(f"{option}: {file} cannot be used: {reason}")
