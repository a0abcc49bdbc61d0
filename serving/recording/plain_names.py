"""The log's columns by the names that people use: `feature.AGEP` is `AGEP`."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from serving.recording.schema import HEAD

__all__ = ["plain_names"]

_PLAIN: Final = ("entity", "feature", "input", "output")
_NAMED: Final = ("status", "age")
_HEAD: Final = frozenset(HEAD.names)


def plain_names(columns: Sequence[str]) -> dict[str, str]:
    """Give every column of a model's log a name without a dot; no two are equal in SQL.

    Entity keys, features, inputs and outputs have their own name, unless two of them, or one and a
    column that every row has, share it (in SQL case does not matter): those are called
    `entity_NAME`, `feature_NAME`, `input_NAME`, `output_NAME`. Views give `status_VIEW` and
    `age_VIEW`.
    """
    bare = {column: _bare(column) for column in columns}
    shared = Counter(name.casefold() for name in bare.values())
    taken: set[str] = {column.casefold() for column in columns if column in _HEAD}
    names = {}
    for column in columns:
        name = bare[column]
        if column not in _HEAD:
            if shared[name.casefold()] > 1:
                name = column.replace(".", "_", 1)
            while name.casefold() in taken:
                name += "_"
            taken.add(name.casefold())
        names[column] = name
    return names


def _bare(column: str) -> str:
    kind, dot, name = column.partition(".")
    if dot and kind in _PLAIN:
        return name
    return f"{kind}_{name}" if dot and kind in _NAMED else column
