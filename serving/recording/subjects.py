"""Whose rows are meant: an entity, as it stands in the columns of the log."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from serving.recording.columns import digest_with
from serving.recording.layout import LogFolder

__all__ = ["Subject"]


class Subject:
    """An entity by its keys: `person_id=42`; all of several have to match.

    Args:
        keys: names and values as text.
        hash_key: of the log's hashed fields; None: there are none.
    """

    def __init__(self, keys: Mapping[str, str], hash_key: bytes | None) -> None:
        self.keys = dict(keys)
        digest = digest_with(hash_key) if hash_key is not None else None
        self._texts = {
            name: [value] if digest is None else [value, digest(value)]
            for name, value in keys.items()
        }

    @classmethod
    def of(cls, log: LogFolder, keys: Mapping[str, str]) -> "Subject":
        """With the log's own key, if it has one. Raises OSError."""
        path = log.root / "hash.key"
        return cls(keys, log.hash_key() if path.exists() else None)

    @property
    def texts(self) -> dict[str, list[str]]:
        """What each key may stand as in a column of text: itself, and its digest."""
        return dict(self._texts)

    @property
    def columns(self) -> list[str]:
        """Names of its columns."""
        return [f"entity.{name}" for name in self.keys]

    def rows(self, table: pa.Table) -> pa.ChunkedArray | None:
        """Which rows of a table are of it, true or false for each; None: none.

        Texts are compared with the value and with its digest, so that rows from before and after
        a change of the field's policy are found.
        """
        found = None
        for name, texts in self._texts.items():
            column = f"entity.{name}"
            if column not in table.column_names:
                return None
            its = _equal(table[column], texts)
            found = its if found is None else pc.and_(found, its)
        if found is None or not pc.any(found).as_py():
            return None
        return found


def _equal(column: pa.ChunkedArray, texts: list[str]) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        return pc.is_in(column, pa.array(texts, pa.string()))
    try:
        value = pa.scalar(texts[0]).cast(column.type)
    except pa.ArrowInvalid:  # a word is no number
        return pc.is_in(column, pa.array([], column.type))
    return pc.fill_null(pc.equal(column, value), fill_value=False)
