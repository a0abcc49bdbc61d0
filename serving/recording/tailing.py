"""The newest rows of the log, and those that come after them: each once, none left out."""

from collections.abc import Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.recording.layout import LogFolder, SegmentName
from serving.recording.lock import held
from serving.recording.reading import OpenLog, OpenParquet, parquet_files
from serving.recording.segment import SegmentFollower

__all__ = ["Follower", "Wanted", "newest"]

_TIME: Final = "event_time"


class Wanted:
    """Which rows are shown."""

    def __init__(self, model: str | None, roles: Iterable[str], codes: Iterable[str]) -> None:
        self.model = model
        self._among = {"role": list(roles), "code": list(codes)}

    def of(self, rows: pa.Table) -> pa.Table:
        """Those of a table."""
        for column, values in self._among.items():
            if values:
                rows = rows.filter(pc.is_in(rows[column], pa.array(values, pa.string())))
        return rows


def newest(log: OpenLog, wanted: Wanted, count: int) -> list[dict[str, Any]]:
    """The newest rows by their time, oldest first.

    Files of older hours are only opened while there are too few rows.
    """
    found: list[dict[str, Any]] = []
    for segment in log.segments:
        contents = log.contents(segment)
        if contents.batches:
            rows = pa.Table.from_batches(contents.batches, contents.schema)
            found = _merged(found, wanted.of(rows), count)
    hours: dict[str, list[OpenParquet]] = {}
    for file in log.parquet:
        hours.setdefault(file.name.hour, []).append(file)
    for hour in sorted(hours, reverse=True):
        ends = hours[hour][0].name.begins + 3600.0
        if len(found) == count and found[0][_TIME].timestamp() >= ends:
            break
        for file in hours[hour]:
            for rows in _newest_groups(log, file, wanted, count):
                found = _merged(found, rows, count)
    return found


def _newest_groups(
    log: OpenLog, file: OpenParquet, wanted: Wanted, count: int
) -> Iterator[pa.Table]:
    """Tables of a file's newest rows. One that cannot be read is noted."""
    try:
        with pq.ParquetFile(file.pinned, page_checksum_verification=True) as opened:
            for group in range(opened.num_row_groups):
                yield _last(wanted.of(opened.read_row_group(group)), count)
    except (pa.ArrowException, OSError) as error:
        log.exclude(file, str(error))


def _last(rows: pa.Table, count: int) -> pa.Table:
    if rows.num_rows <= count:
        return rows
    order = pc.sort_indices(rows, sort_keys=[(_TIME, "ascending")])
    return rows.take(order[-count:])


def _merged(found: list[dict[str, Any]], rows: pa.Table, count: int) -> list[dict[str, Any]]:
    together = [*found, *_last(rows, count).to_pylist()]
    return sorted(together, key=itemgetter(_TIME))[-count:]


class Follower:
    """Gives the rows that are written from now on.

    Args:
        folder: the log.
        wanted: which rows.
    """

    def __init__(self, folder: LogFolder, wanted: Wanted) -> None:
        self._folder = folder
        self._wanted = wanted
        self._following: dict[str, SegmentFollower] = {}
        self._over: set[str] = set()
        """Identities of segments that have been read to their end."""

        with held(folder.lock, alone=False):
            for name in folder.live(wanted.model):
                self._begin(name)
            self._known = {file.path for file in parquet_files(folder, wanted.model)}
        for follower in self._following.values():
            follower.more()

    def close(self) -> None:
        """Let the files go."""
        for follower in self._following.values():
            follower.close()
        self._following.clear()

    def more(self) -> list[dict[str, Any]]:
        """Rows since the last time, by their time."""
        with held(self._folder.lock, alone=False):
            live = self._folder.live(self._wanted.model)
            for name in live:
                self._begin(name)
            files = parquet_files(self._folder, self._wanted.model)
        there = {name.identity for name in live}
        tables: list[pa.Table] = []
        for identity, follower in list(self._following.items()):
            batches = follower.more()
            if batches:
                tables.append(pa.Table.from_batches(batches))
            if follower.ended or identity not in there:
                follower.close()
                self._over.add(identity)
                del self._following[identity]
        for file in files:
            # A segment that came and went between two looks is in Parquet only.
            if file.path in self._known or file.merged or file.identity in there | self._over:
                continue
            tables.append(_whole(file.path))
        self._known = {file.path for file in files if file.identity not in there}
        self._over &= there | {file.identity for file in files}
        rows = [row for table in tables for row in self._wanted.of(table).to_pylist()]
        return sorted(rows, key=itemgetter(_TIME))

    def _begin(self, name: SegmentName) -> None:
        if name.identity in self._following or name.identity in self._over:
            return
        for path in (name.path, name.path.with_suffix(".arrows")):
            try:
                self._following[name.identity] = SegmentFollower(path)
            except FileNotFoundError:
                continue
            return


def _whole(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, partitioning=None)
    except FileNotFoundError:  # merged, or deleted, since it was listed
        return pa.table({"role": pa.array([], pa.string()), "code": pa.array([], pa.string())})
