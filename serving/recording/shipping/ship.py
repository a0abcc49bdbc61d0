"""Ship what a target does not have yet, oldest hours first."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa

from serving.recording.layout import LogFolder
from serving.recording.reading import OpenLog, OpenParquet, sources_of
from serving.recording.shipping.cursor import Cursor, State, state_of
from serving.recording.shipping.target import Consignment, Target

__all__ = ["Due", "Shipped", "due", "ship"]


class Shipped(msgspec.Struct, kw_only=True):
    """What one look has sent, and files that could not be read."""

    files: int = 0
    rows: int = 0
    size: int = 0
    damaged: list[str] = []


class Due(msgspec.Struct, frozen=True):
    """One file of the log: whether it has to be sent, or only noted since its rows have been."""

    file: str
    state: State
    send: bool


def due(
    files: Iterable[tuple[str, State]],
    shipped: Mapping[str, State],
    sources: Callable[[str], list[str]],
) -> list[Due]:
    """Decide what a target lacks.

    Args:
        files: paths in the log and how they are now.
        shipped: how they were when they were sent.
        sources: paths of the files that one was merged from; none if it was not.
    """
    found = []
    for file, state in files:
        if shipped.get(file) == state:
            continue
        of = sources(file) if file not in shipped else []
        # Merged of files that the target has: the same rows once more would be no news.
        found.append(Due(file, state, send=not of or any(one not in shipped for one in of)))
    return found


def ship(
    log: LogFolder, target: Target, cursor: Cursor, told: Callable[[str], None] = lambda _: None
) -> Shipped:
    """Send every file that a target does not have, as it is now.

    Args:
        log: what to ship.
        target: where to.
        cursor: what it has.
        told: is told the path of each file that was sent.

    Raises:
        ShippingFailed: the target did not take one; those before it are noted.
        OSError: of the disk.
    """
    done = Shipped()
    with OpenLog(log) as opened:
        files = {_path(log, file): file for file in _by_hour(opened.parquet)}
        states = {path: state_of(file.pinned) for path, file in files.items()}

        def sources(path: str) -> list[str]:
            if not files[path].name.merged:
                return []
            try:
                names = sources_of(files[path].pinned)
            except (OSError, pa.ArrowException, ValueError):
                return []
            return [str(Path(path).parent / name) for name in names]

        for one in due(states.items(), cursor.shipped, sources):
            file = files[one.file]
            # Looked at here, so that no target has to tell a bad file from its own troubles.
            if one.send and opened.check(file) is None:
                done.damaged.append(one.file)
                continue
            if one.send:
                done.rows += target.ship(
                    Consignment(
                        file=one.file,
                        path=file.pinned,
                        model=file.name.model,
                        hour=file.name.hour,
                    )
                )
                done.files += 1
                done.size += one.state[0]
                told(one.file)
            cursor.note(one.file, one.state)
        cursor.keep(set(files))
    return done


def _by_hour(files: Iterable[OpenParquet]) -> list[OpenParquet]:
    return sorted(files, key=lambda file: (file.name.hour, file.name.path))


def _path(log: LogFolder, file: OpenParquet) -> str:
    return str(file.name.path.relative_to(log.parquet))
