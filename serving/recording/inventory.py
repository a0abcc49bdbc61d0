"""What the log holds of each model, from the footers of its files."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serving.recording.layout import LogFolder
from serving.recording.reading import FileDamage, OpenLog

__all__ = ["Held", "inventory"]


class Held(msgspec.Struct, kw_only=True):
    """What there is of one model. `size` is in bytes; times are of rows, None without any."""

    model: str
    versions: list[str] = []
    rows: int = 0
    parquet_files: int = 0
    segments: int = 0
    size: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def seen(self, *times: datetime | None) -> None:
        """Widen the range of time."""
        known = [time for time in (*times, self.oldest, self.newest) if time is not None]
        if known:
            self.oldest, self.newest = min(known), max(known)


def inventory(folder: LogFolder) -> tuple[list[Held], list[FileDamage]]:
    """Look at every file; what is damaged is told. Raises OSError."""
    found: dict[str, Held] = {}
    versions: dict[str, set[str]] = {}
    with OpenLog(folder) as log:
        for file in list(log.parquet):
            metadata = log.metadata(file)
            if metadata is None:
                continue
            held = found.setdefault(file.name.model, Held(model=file.name.model))
            held.rows += metadata.num_rows
            held.parquet_files += 1
            held.size += file.pinned.stat().st_size
            ranges = _ranges(metadata)
            held.seen(*(time.replace(tzinfo=UTC) for time in ranges.get("event_time", [])))
            versions.setdefault(held.model, set()).update(ranges.get("version", []))
        for segment in log.segments:
            held = found.setdefault(segment.name.model, Held(model=segment.name.model))
            contents = log.contents(segment)
            held.rows += contents.rows
            held.segments += 1
            held.size += segment.pinned.stat().st_size
            for batch in contents.batches:
                held.seen(*pc.min_max(batch["event_time"]).as_py().values())
            versions.setdefault(held.model, set()).add(segment.name.version)
        for held in found.values():
            held.versions = sorted(version for version in versions[held.model] if version)
        return [found[model] for model in sorted(found)], log.damages


def _ranges(metadata: pq.FileMetaData) -> dict[str, list[Any]]:
    """Smallest and largest of the columns that are told about, by the groups' statistics.

    A merged file of more than two versions may name two of them only.
    """
    found: dict[str, list[Any]] = {}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            if column.path_in_schema in {"event_time", "version"} and column.is_stats_set:
                statistics = column.statistics
                if statistics.has_min_max:
                    found.setdefault(column.path_in_schema, []).extend(
                        (statistics.min, statistics.max)
                    )
    return found
