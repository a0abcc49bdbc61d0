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

__all__ = ["DEFAULT_ADMIN", "Where", "gateway_options"]

DEFAULT_ADMIN: Final = "http://127.0.0.1:8002"
_Callback = TypeVar("_Callback", bound=Callable[..., Any])


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Which gateway a command means, as its options say."""

    data: Path | None = None
    admin: str | None = None
    token_file: Path | None = None

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


def gateway_options(callback: _Callback) -> _Callback:
    """Add `--data`, `--admin` and `--token-file` and pass a `Where` as the keyword `where`."""

    @click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Data directory of the gateway [default: .sluice in DIR or here].",
    )
    @click.option(
        "--admin",
        metavar="URL",
        envvar="SLUICE_ADMIN",
        help=f"Admin address of the gateway [default: {DEFAULT_ADMIN}].",
    )
    @click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File that holds the token [default: $SLUICE_TOKEN, or the data directory's].",
    )
    @functools.wraps(callback)
    def wrapped(
        *args: Any, data: Path | None, admin: str | None, token_file: Path | None, **kwargs: Any
    ) -> Any:
        where = Where(data=data, admin=admin, token_file=token_file)
        return callback(*args, where=where, **kwargs)

    return wrapped  # type: ignore[return-value]
