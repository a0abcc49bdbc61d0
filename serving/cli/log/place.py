"""Which log a command means, and times on the command line."""

import functools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from serving.cli.output import CommandError
from serving.cli.where import Where
from serving.config.problems import did_you_mean
from serving.recording.layout import LogFolder

__all__ = ["LogPlace", "known_model", "log_options", "log_place", "read_moment", "read_size"]

_USUAL: Final = "predictions"
_AGO: Final = re.compile(r"\d+(\.\d+)?[a-z]+\Z")
_Callback = TypeVar("_Callback", bound=Callable[..., Any])


class LogPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A log, and the data directory it is of; None: it was named itself."""

    folder: Path
    data: Path | None = None

    @property
    def log(self) -> LogFolder:
        """Its paths."""
        return LogFolder(self.folder)


class _Logged(msgspec.Struct):
    path: str = _USUAL


class _Gateway(msgspec.Struct):
    """As much of what a worker last read as is needed here."""

    log: _Logged | None = None


def log_options(callback: _Callback) -> _Callback:
    """Add `--data` and `--log`, and pass a `LogPlace` as the keyword `place`."""

    @click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=False),
        help="Data directory of the gateway, or the configuration directory it is in "
        "[default: .sluice here].",
    )
    @click.option(
        "--log",
        "folder",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="The log itself, such as a copy of one [default: the gateway's].",
    )
    @functools.wraps(callback)
    def wrapped(*args: Any, data: Path | None, folder: Path | None, **kwargs: Any) -> Any:
        try:
            return callback(*args, place=log_place(data, folder), **kwargs)
        except Exception as error:
            if _of_the_disk(error):
                raise CommandError(f"the prediction log: {error}") from error
            raise

    return wrapped  # type: ignore[return-value]


def _of_the_disk(error: Exception) -> bool:
    """Whether a file could not be read or written. Arrow is there if it was Arrow that says so."""
    import pyarrow as pa

    if isinstance(error, BrokenPipeError):
        return False  # whoever read the answer has seen enough
    return isinstance(error, (OSError, pa.ArrowException))


def log_place(data: Path | None, folder: Path | None) -> LogPlace:
    """The log at `folder`, or of the gateway of `data`. Raises CommandError if there is none."""
    if folder is not None:
        if not folder.is_dir():
            raise CommandError(f"there is no prediction log at {folder}")
        return LogPlace(folder=folder)
    found = Where(data=data).data_directory()
    if found is None:
        raise CommandError(
            "there is no gateway's data directory here",
            "`--data DIR` names one, or the configuration directory it is in",
        )
    log = found / _path_of(found)
    if not log.is_dir():
        raise CommandError(
            f"there is no prediction log at {log}",
            "`log: {}` in gateway.yaml switches it on; the first prediction makes it",
        )
    return LogPlace(folder=log, data=found)


def _path_of(data: Path) -> str:
    """Where the gateway keeps its log, by what its workers last read."""
    try:
        gateway = msgspec.json.decode((data / "gateway.json").read_bytes(), type=_Gateway)
    except (OSError, msgspec.MsgspecError):
        return _USUAL
    return gateway.log.path if gateway.log is not None else _USUAL


def known_model(place: LogPlace, model: str | None) -> str | None:
    """A model that has rows, or None for all. Raises CommandError naming the near one."""
    if model is None:
        return None
    there = place.log.models()
    if model in there:
        return model
    hint = did_you_mean(model, there) or f"there is {', '.join(there) or 'none yet'}"
    raise CommandError(f"the log has no rows of `{model}`", hint)


def read_moment(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Seconds since 1970 from `2h` (ago) or ISO 8601 (UTC without a zone); an option's callback."""
    from serving.config.units import Seconds

    del ctx, parameter
    if text is None:
        return None
    try:
        if _AGO.match(text):
            return time.time() - float(Seconds.parse(text))
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"`{text}` is neither a time ago such as 2h or 7d nor one such as 2026-11-29T19:00"
        ) from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def read_size(ctx: click.Context, parameter: click.Parameter, text: str) -> int:
    """Bytes, written as in the configuration; an option's callback."""
    from serving.config.units import ByteSize

    del ctx, parameter
    try:
        return int(ByteSize.parse(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
