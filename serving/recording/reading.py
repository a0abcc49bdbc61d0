"""One consistent view of the log: segments and Parquet files, and no row twice.

A row is in one segment, then in Parquet files, then perhaps in a merged one, and for moments in
two of them. Which file counts:

- a Parquet file named after a segment that is still there does not: it may be half made;
- of a merged file and one of its sources (key `sluice.sources` of its metadata, a JSON list of
  file names in the same folder) the merged one counts.

Files are listed and opened while the log's lock is shared; after that they may be moved, merged or
deleted, and are read all the same.
"""

import contextlib
import os
import resource
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from serving.recording.layout import LogFolder, SegmentName
from serving.recording.lock import held
from serving.recording.parquet import SOURCES
from serving.recording.segment import Contents, read_segment

__all__ = [
    "FileDamage",
    "OpenLog",
    "OpenParquet",
    "OpenSegment",
    "ParquetName",
    "allow_many_files",
    "current",
    "parquet_files",
    "sources_of",
]

_MERGED: Final = "merged-"
_HOUR_SECONDS: Final = 3600.0
_SKEW_SECONDS: Final = 5.0
"""How far the clock that stamped a row may be ahead of the one that stamped its file."""


class FileDamage(msgspec.Struct, frozen=True):
    """A part of a file that cannot be read. `length` is in bytes; `file` is relative to the log."""

    file: str
    offset: int
    length: int
    reason: str


class ParquetName(msgspec.Struct, frozen=True):
    """A Parquet file by its path. `hour` is the folder's, UTC, such as `2026-11-29T19`."""

    path: Path
    model: str
    hour: str

    @classmethod
    def parse(cls, path: Path) -> "ParquetName | None":
        """Read a path; None for a file that is none of the log's."""
        hour, model = path.parent.name, path.parent.parent.name
        if (
            path.suffix != ".parquet"
            or path.name.startswith(".")
            or not (hour.startswith("hour=") and model.startswith("model="))
        ):
            return None
        return cls(path, model.partition("=")[2], hour.partition("=")[2])

    @property
    def merged(self) -> bool:
        """Whether it was made of others."""
        return self.path.name.startswith(_MERGED)

    @property
    def identity(self) -> str:
        """Of the segment it was made from; a name no segment has, if it is merged."""
        return self.path.stem

    @property
    def begins(self) -> float:
        """When its hour begins, seconds since 1970. Raises ValueError: that is no hour."""
        return datetime.strptime(self.hour, "%Y-%m-%dT%H").replace(tzinfo=UTC).timestamp()

    def within(self, since: float | None, until: float | None) -> bool:
        """Whether it may hold rows of a time range (seconds since 1970)."""
        try:
            begins = self.begins
        except ValueError:
            return True
        late_enough = since is None or begins + _HOUR_SECONDS > since
        return late_enough and (until is None or begins <= until)


def parquet_files(folder: LogFolder, model: str | None = None) -> list[ParquetName]:
    """Every Parquet file there is, also those that do not count, in order of their paths."""
    pattern = f"model={model or '*'}/hour=*/*.parquet"
    names = (ParquetName.parse(path) for path in sorted(folder.parquet.glob(pattern)))
    return [name for name in names if name is not None and model in (None, name.model)]


def current(
    files: Iterable[ParquetName], live: Collection[str], sources: Mapping[Path, Collection[str]]
) -> list[ParquetName]:
    """Those whose rows count.

    Args:
        files: all there are.
        live: identities of segments that are there.
        sources: names of the files that a merged one was made of, by its path.
    """
    replaced = {path.parent / name for path, names in sources.items() for name in names}
    return [file for file in files if file.identity not in live and file.path not in replaced]


def sources_of(path: Path) -> list[str]:
    """Names of the files that a merged one was made of.

    Raises:
        OSError, pa.ArrowException, ValueError: it cannot be read.
    """
    found = (pq.read_metadata(path).metadata or {}).get(SOURCES)
    return [Path(name).name for name in msgspec.json.decode(found, type=list[str])] if found else []


class OpenSegment(msgspec.Struct, frozen=True):
    """A segment that stays readable. `pinned` is a path that holds as long as the log is open."""

    name: SegmentName
    pinned: Path


class OpenParquet(msgspec.Struct, frozen=True):
    """A Parquet file that stays readable. `pinned` is a path that holds while the log is open."""

    name: ParquetName
    pinned: Path


class OpenLog:
    """The files of the log as they were at one moment; a context manager that closes them.

    Args:
        folder: the log.
        models: those that are wanted; None: all.
        since, until: files that hold no rows of this time (seconds since 1970) may be left out.

    Raises:
        OSError: it cannot be read, or too many files are there for one process.
    """

    def __init__(
        self,
        folder: LogFolder,
        models: Collection[str] | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
    ) -> None:
        self.folder = folder
        self.segments: list[OpenSegment] = []
        self.parquet: list[OpenParquet] = []
        self.damages: list[FileDamage] = []
        """What is not readable, as far as it was noticed."""

        self._open: list[int] = []
        allow_many_files()
        try:
            with held(folder.lock, alone=False):
                self._list(models, since, until)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the files go."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    @property
    def models(self) -> list[str]:
        """Models that have files here, in order."""
        return sorted(
            {one.name.model for one in self.segments} | {one.name.model for one in self.parquet}
        )

    def contents(self, segment: OpenSegment) -> Contents:
        """What a segment holds; its damages are noted."""
        size = segment.pinned.stat().st_size
        contents = read_segment(segment.pinned)
        for damage in contents.damages:
            # The end of one that is not sealed is being written, or was when its writer died.
            if segment.name.sealed or damage.offset + damage.length < size:
                self._note(segment.name.path, damage.offset, damage.length, damage.reason)
        return contents

    def metadata(self, file: OpenParquet) -> pq.FileMetaData | None:
        """The footer of a Parquet file; None, and noted, if it is damaged."""
        try:
            return pq.read_metadata(file.pinned)
        except (pa.ArrowException, OSError) as error:
            self.exclude(file, str(error))
            return None

    def check(self, file: OpenParquet) -> int | None:
        """Read every byte of a Parquet file, compare checksums, and count its rows.

        Returns:
            None, and noted, if it is damaged.
        """
        try:
            with pq.ParquetFile(file.pinned, page_checksum_verification=True) as source:
                groups = range(source.num_row_groups)
                return int(sum(source.read_row_group(group).num_rows for group in groups))
        except (pa.ArrowException, OSError) as error:
            self.exclude(file, str(error))
            return None

    def exclude(self, file: OpenParquet, reason: str) -> None:
        """Leave a damaged file out from now on."""
        self.parquet = [one for one in self.parquet if one is not file]
        self._note(file.name.path, 0, file.pinned.stat().st_size, reason.splitlines()[0][:200])

    def _note(self, path: Path, offset: int, length: int, reason: str) -> None:
        damage = FileDamage(str(path.relative_to(self.folder.root)), offset, length, reason)
        if damage not in self.damages:
            self.damages.append(damage)

    def _list(
        self, models: Collection[str] | None, since: float | None, until: float | None
    ) -> None:
        live = self.folder.live()
        identities = {name.identity for name in live}
        files = parquet_files(self.folder)
        wanted = [
            file
            for file in files
            if (models is None or file.model in models) and file.within(since, until)
        ]
        for file in current(wanted, identities, self._sources(wanted)):
            self.parquet.append(OpenParquet(file, self._pin(file.path)))
        for name in live:
            if models is not None and name.model not in models:
                continue
            with contextlib.suppress(FileNotFoundError):  # an empty one that its writer withdrew
                pinned = self._pin_segment(name)
                if since is None or pinned.stat().st_mtime + _SKEW_SECONDS >= since:
                    self.segments.append(OpenSegment(name, pinned))

    def _sources(self, files: Iterable[ParquetName]) -> dict[Path, list[str]]:
        """Of merged files, where there is one of their folder that could be a source."""
        folders: dict[Path, list[ParquetName]] = {}
        for file in files:
            folders.setdefault(file.path.parent, []).append(file)
        found = {}
        for beside in folders.values():
            for file in beside if len(beside) > 1 else ():
                # One that cannot be read replaces nothing; it is noted when it is to be read.
                with contextlib.suppress(OSError, pa.ArrowException, ValueError):
                    if file.merged:
                        found[file.path] = sources_of(file.path)
        return found

    def _pin_segment(self, name: SegmentName) -> Path:
        """Open a segment; one that is sealed meanwhile is opened by its new name."""
        try:
            return self._pin(name.path)
        except FileNotFoundError:
            return self._pin(name.path.with_suffix(".arrows"))

    def _pin(self, path: Path) -> Path:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open.append(descriptor)
        return Path(f"/proc/self/fd/{descriptor}")


def allow_many_files() -> None:
    """Have as many files open as the machine allows this process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
