"""What a worker takes from `gateway.yaml`: bounds, credentials, certificates, tracing.

The last settings that could be read are kept under the data directory: a worker that is
restarted while somebody is halfway through an edit starts with those.
"""

import contextlib
import logging
import ssl
from pathlib import Path
from typing import Final

import grpc
import msgspec

from serving.config.addresses import listener_parts
from serving.config.applied import read_applied
from serving.config.identity import IdentityTable, OpenTable, TokenTable
from serving.config.load import load_gateway, load_tokens
from serving.config.schema import GatewayConfig, Listener, TokensFile
from serving.config.snapshot_codec import dec_hook, enc_hook
from serving.errors import InvalidConfig
from serving.files import stamp, write_whole
from serving.types import Principal

__all__ = ["Credentials", "Settings", "load_settings", "server_context"]

_GATEWAY: Final = "gateway.yaml"
_LAST_GOOD: Final = "gateway.json"
_LAST_TOKENS: Final = "tokens.json"
_LOG = logging.getLogger("settings")


class Credentials:
    """Who may call, read again when the token file changes.

    A file that cannot be read, or holds a mistake, leaves the known tokens in force; those are
    remembered (as hashes) in `remembered`, so that a restart knows them too.

    Raises:
        InvalidConfig: the file cannot be used, and no earlier state of it is remembered.
    """

    def __init__(self, file: Path | None, remembered: Path | None = None) -> None:
        self._file = file
        self._remembered = remembered
        self._stamp: tuple[int, ...] | None = None
        self._table: IdentityTable = OpenTable()
        if file is not None:
            self._stamp = stamp(file)
            try:
                self._table = self._load(file)
            except InvalidConfig as error:
                known = self._recall()
                if known is None:
                    raise
                self._table = known
                _LOG.error("the token file is not used, its last good state is: %s", error.message)

    def _load(self, file: Path) -> IdentityTable:
        tokens = load_tokens(file)
        if self._remembered is not None:
            with contextlib.suppress(OSError):
                write_whole(self._remembered, msgspec.json.encode(tokens))
        return TokenTable.from_entries(tokens.tokens)

    def _recall(self) -> IdentityTable | None:
        if self._remembered is None:
            return None
        try:
            tokens = msgspec.json.decode(self._remembered.read_bytes(), type=TokensFile)
        except (OSError, ValueError, RecursionError):
            return None
        return TokenTable.from_entries(tokens.tokens)

    def identify(self, authorization: str | None) -> Principal:
        """Name the caller. Raises Unauthenticated."""
        return self._table.identify(authorization)

    def refresh(self) -> None:
        """Take over an edited file."""
        seen = stamp(self._file) if self._file is not None else None
        if self._file is None or seen is None or seen == self._stamp:
            return
        self._stamp = seen
        try:
            self._table = self._load(self._file)
        except InvalidConfig as error:
            _LOG.error("the edited token file is not used: %s", error.message)
        else:
            _LOG.info("tokens read again")


class Settings(msgspec.Struct, kw_only=True):
    """`gateway.yaml` with its files read."""

    gateway: GatewayConfig
    credentials: Credentials
    http_tls: ssl.SSLContext | None
    grpc_credentials: grpc.ServerCredentials | None


def load_settings(config: Path, data: Path, generation: int = 0) -> Settings:
    """Read what was applied as `generation`; for 0 `gateway.yaml`, or what it last said.

    The first worker to read it under an engine does so for all: one that is restarted alone
    must not serve by other rules than its siblings. `sluice up` begins anew.

    Raises:
        InvalidConfig: it cannot be read and never could, or names a file that cannot be used.
    """
    applied = read_applied(data, generation)
    if applied is not None:
        gateway, config = applied.gateway, Path(applied.directory)
    else:
        gateway = _pinned(config, data)
    tokens = config / gateway.auth.tokens if gateway.auth is not None else None
    return Settings(
        gateway=gateway,
        credentials=Credentials(tokens, data / _LAST_TOKENS),
        http_tls=server_context("listen.http", gateway.listen.http, config),
        grpc_credentials=_grpc_credentials("listen.grpc", gateway.listen.grpc, config),
    )


def _pinned(config: Path, data: Path) -> GatewayConfig:
    pinned = data / "run" / _LAST_GOOD
    gateway = _recall(pinned)
    if gateway is None:
        gateway = _gateway(config, data / _LAST_GOOD)
        with contextlib.suppress(OSError):
            write_whole(pinned, msgspec.json.encode(gateway, enc_hook=enc_hook))
    return gateway


def _gateway(config: Path, remembered: Path) -> GatewayConfig:
    try:
        gateway = load_gateway(config)
        _refuse_emptied(config / _GATEWAY, remembered)
    except InvalidConfig as error:
        known = _recall(remembered)
        if known is None:
            raise
        _LOG.error("gateway.yaml cannot be used, going on with its last good state: %s", error)
        return known
    try:
        write_whole(remembered, msgspec.json.encode(gateway, enc_hook=enc_hook))
    except OSError as error:
        _LOG.warning("gateway.yaml cannot be remembered for bad times: %s", error)
    return gateway


def _refuse_emptied(file: Path, remembered: Path) -> None:
    """An editor may empty a file before it writes it, and nothing in it would mean no tokens."""
    with contextlib.suppress(OSError):
        if file.stat().st_size == 0 and _recall(remembered) is not None:
            raise InvalidConfig("gateway.yaml is empty, and was not before")


def _recall(remembered: Path) -> GatewayConfig | None:
    try:
        return msgspec.json.decode(remembered.read_bytes(), type=GatewayConfig, dec_hook=dec_hook)
    except (OSError, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def server_context(name: str, listener: str | Listener, folder: Path) -> ssl.SSLContext | None:
    """Make the TLS context of a listener, None for a plaintext one. TLS 1.2 and later.

    Args:
        name: the listener's place in `gateway.yaml`, for the error.
        listener: what it says there.
        folder: the configuration directory.

    Raises:
        InvalidConfig: a file is missing, is none of its kind, or does not fit the others.
    """
    _, tls = listener_parts(listener)
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password OpenSSL would ask the terminal for one, and wait.
        context.load_cert_chain(folder / tls.cert, folder / tls.key, password="")
        if tls.client_ca is not None:
            context.load_verify_locations(folder / tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:  # ssl's errors are OSErrors
        raise InvalidConfig(f"the TLS files of {name} cannot be used: {error}") from error
    return context


def _grpc_credentials(
    name: str, listener: str | Listener, folder: Path
) -> grpc.ServerCredentials | None:
    _, tls = listener_parts(listener)
    if tls is None:
        return None
    # gRPC would take any bytes now and fail when it listens, with no word about the reason.
    server_context(name, listener, folder)
    key, cert = (folder / tls.key).read_bytes(), (folder / tls.cert).read_bytes()
    authority = (folder / tls.client_ca).read_bytes() if tls.client_ca is not None else None
    return grpc.ssl_server_credentials(
        [(key, cert)], root_certificates=authority, require_client_auth=authority is not None
    )
