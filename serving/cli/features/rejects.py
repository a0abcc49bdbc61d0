"""The file that takes rows which do not fit: as they were, with their number and the reason."""

import csv
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TextIO

from feature_cache.ingest import Reject

__all__ = ["RejectFile"]

_SHOWN: Final = 3


class RejectFile:
    """A CSV file that is made when the first row comes.

    Args:
        path: where.
        append: keep what an earlier part of the same load wrote.
    """

    def __init__(self, path: Path, *, append: bool) -> None:
        self.path = path
        self.rows = 0
        self.first: list[Reject] = []
        """The first few, to be shown."""
        self._append = append
        self._stream: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def write(self, rejects: Sequence[tuple[Reject, dict[str, Any]]]) -> None:
        """Add some. Raises OSError."""
        if not rejects:
            return
        if self._stream is None:
            more = self._append and self.path.exists()
            self._stream = self.path.open("a" if more else "w", newline="", encoding="utf-8")
            if not more:
                csv.writer(self._stream).writerow(["row", "reason", "as_read"])
        writer = csv.writer(self._stream)
        for reject, row in rejects:
            text = row["text"] if row.keys() == {"text"} else _line(row)
            writer.writerow([reject.row, reject.reason, text])
            if len(self.first) < _SHOWN:
                self.first.append(reject)
        self.rows += len(rejects)
        self._stream.flush()


def _line(row: dict[str, Any]) -> str:
    """A row as JSON, whatever its values are."""
    import orjson

    return orjson.dumps(row, default=str).decode()
