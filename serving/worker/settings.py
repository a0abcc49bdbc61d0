"""What a worker takes from `gateway.yaml`: bounds, credentials, certificates, tracing.

The last settings that could be read are kept under the data directory: a worker that is
restarted while somebody is halfway through an edit starts with those.
"""

import logging
import ssl
from pathlib import Path
from typing import Final

import grpc
import msgspec

from serving.config.identity import IdentityTable, OpenTable, TokenTable
from serving.config.load import load_gateway, load_tokens
from serving.config.schema import GatewayConfig, Listener, TlsConfig
from serving.config.snapshot_codec import dec_hook, enc_hook
from serving.errors import InvalidConfig
from serving.files import write_whole
from serving.types import Principal

__all__ = ["Credentials", "Settings", "load_settings", "server_context"]

_LAST_GOOD: Final = "gateway.json"
_LOG = logging.getLogger("settings")


class Credentials:
    """Who may call, read again when the token file changes.

    A file that cannot be read, or holds a mistake, leaves the known tokens in force.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._table: IdentityTable = OpenTable()
        if file is not None:
            self._stamp = self._read_stamp()
            self._table = TokenTable.from_entries(load_tokens(file).tokens)

    def identify(self, authorization: str | None) -> Principal:
        """Name the caller. Raises Unauthenticated."""
        return self._table.identify(authorization)

    def refresh(self) -> None:
        """Take over an edited file."""
        stamp = self._read_stamp()
        if self._file is None or stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._table = TokenTable.from_entries(load_tokens(self._file).tokens)
        except InvalidConfig as error:
            _LOG.error("the edited token file is not used: %s", error.message)
        else:
            _LOG.info("tokens read again")

    def _read_stamp(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size


class Settings(msgspec.Struct, kw_only=True):
    """`gateway.yaml` with its files read."""

    gateway: GatewayConfig
    credentials: Credentials
    http_tls: ssl.SSLContext | None
    grpc_credentials: grpc.ServerCredentials | None


def load_settings(config: Path, data: Path) -> Settings:
    """Read `gateway.yaml`, or what it last said if it cannot be read now.

    Raises:
        InvalidConfig: it cannot be read and never could, or names a file that is not there.
    """
    remembered = data / _LAST_GOOD
    try:
        gateway = load_gateway(config)
    except InvalidConfig as error:
        if not remembered.exists():
            raise
        _LOG.error("gateway.yaml cannot be used, going on with its last good state: %s", error)
        gateway = msgspec.json.decode(
            remembered.read_bytes(), type=GatewayConfig, dec_hook=dec_hook
        )
    else:
        write_whole(remembered, msgspec.json.encode(gateway, enc_hook=enc_hook))
    tokens = config / gateway.auth.tokens if gateway.auth is not None else None
    http, grpc_listener = gateway.listen.http, gateway.listen.grpc
    return Settings(
        gateway=gateway,
        credentials=Credentials(tokens),
        http_tls=server_context(http, config),
        grpc_credentials=_grpc_credentials(grpc_listener, config),
    )


def _tls(listener: str | Listener) -> TlsConfig | None:
    return listener.tls if isinstance(listener, Listener) else None


def server_context(listener: str | Listener, folder: Path) -> ssl.SSLContext | None:
    """Make the TLS context of a listener, None for a plaintext one. TLS 1.2 and later."""
    tls = _tls(listener)
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(folder / tls.cert, folder / tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(folder / tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(f"the TLS files of a listener cannot be used: {error}") from error
    return context


def _grpc_credentials(listener: str | Listener, folder: Path) -> grpc.ServerCredentials | None:
    tls = _tls(listener)
    if tls is None:
        return None
    try:
        key, cert = (folder / tls.key).read_bytes(), (folder / tls.cert).read_bytes()
        authority = (folder / tls.client_ca).read_bytes() if tls.client_ca is not None else None
    except OSError as error:
        raise InvalidConfig(f"the TLS files of a listener cannot be used: {error}") from error
    return grpc.ssl_server_credentials(
        [(key, cert)], root_certificates=authority, require_client_auth=authority is not None
    )
