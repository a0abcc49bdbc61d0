"""Which gateway a command means: options, environment, and what is on this machine.

The gateway is found by `--admin URL`, or by what an engine wrote under the data directory; the
credential comes from `--token-file`, $SLUICE_TOKEN or the data directory, in this order.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from serving.cli.output import CommandError
from serving.cli.tls import ClientTls

__all__ = ["DEFAULT_ADMIN", "Where", "connection_options", "gateway_options"]

DEFAULT_ADMIN: Final = "http://127.0.0.1:8002"
_Callback = TypeVar("_Callback", bound=Callable[..., Any])
_FILE: Final = click.Path(path_type=Path, dir_okay=False)


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Which gateway a command means, as its options say."""

    data: Path | None = None
    admin: str | None = None
    token_file: Path | None = None
    tls: ClientTls = ClientTls()

    def token(self) -> str:
        """The credential given by option or environment; empty if none is."""
        if self.token_file is None:
            return os.environ.get("SLUICE_TOKEN", "")
        try:
            return self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"the token file {self.token_file} cannot be read") from error

    def data_directory(self, near: Path | None = None) -> Path | None:
        """The data directory meant, or the one of a configuration directory, or the one here."""
        for candidate in (self.data, near, Path()):
            if candidate is None:
                continue
            if (candidate / ".sluice").is_dir():
                return candidate / ".sluice"
            if candidate is self.data:
                return candidate
        return None


def connection_options(callback: _Callback) -> _Callback:
    """Add `--data`, `--token-file` and TLS options, and pass a `Where` as the keyword `where`."""

    @click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Data directory of the gateway, or the configuration directory it is in "
        "[default: .sluice in DIR or here].",
    )
    @click.option(
        "--token-file",
        type=_FILE,
        help="File that holds the token [default: $SLUICE_TOKEN; the admin port's is also found "
        "in the data directory].",
    )
    @click.option("--ca", type=_FILE, help="Believe certificates that this authority issued.")
    @click.option("--client-cert", type=_FILE, help="Show this certificate; PEM, with its key.")
    @click.option("--client-key", type=_FILE, help="The certificate's key, if it is not with it.")
    @functools.wraps(callback)
    def wrapped(
        *args: Any,
        data: Path | None,
        token_file: Path | None,
        ca: Path | None,
        client_cert: Path | None,
        client_key: Path | None,
        admin: str | None = None,
        **kwargs: Any,
    ) -> Any:
        if client_key is not None and client_cert is None:
            raise click.UsageError("--client-key needs --client-cert")
        where = Where(
            data=data,
            admin=admin,
            token_file=token_file,
            tls=ClientTls(ca=ca, client_cert=client_cert, client_key=client_key),
        )
        return callback(*args, where=where, **kwargs)

    return wrapped  # type: ignore[return-value]


def gateway_options(callback: _Callback) -> _Callback:
    """Add `--admin` to `connection_options`."""
    return click.option(
        "--admin",
        metavar="URL",
        envvar="SLUICE_ADMIN",
        help=f"Admin address of a gateway anywhere [default: {DEFAULT_ADMIN}].",
    )(connection_options(callback))
