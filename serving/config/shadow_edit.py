"""Add a version, as a shadow, to a model's YAML, leaving every other character as it is.

Comments, order and quotes are the writer's. So text is put in at places that the parser tells,
and the result is read again: it must say what the old file said and the new version, or nothing
is changed.
"""

from collections.abc import Mapping
from typing import Any

import yaml

__all__ = ["CannotEdit", "add_shadow"]


class CannotEdit(ValueError):
    """The file is written in a way that is not edited; the message says what to write."""


def add_shadow(text: str, version: str, source: Mapping[str, Any], percent: float) -> str:
    """Give the text with `versions.VERSION` and an entry of `traffic.shadow`.

    Args:
        text: the model's file, which is valid.
        version: its name; not there yet.
        source: what `versions.VERSION` says.
        percent: of the requests that are copied to it.

    Raises:
        CannotEdit: it is written in an unusual way.
    """
    before = yaml.safe_load(text)
    shadow = {"version": version, "percent": percent}
    wanted = dict(before)
    wanted["versions"] = {**before["versions"], version: dict(source)}
    wanted["traffic"] = {
        **before["traffic"],
        "shadow": [*(before["traffic"].get("shadow") or []), shadow],
    }
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    try:
        edits = [
            _into(text, ("versions",), [f"{version}: {_flow(source)}"]),
            _shadow(text, before, _flow(shadow)),
        ]
        for place, added in sorted(edits, reverse=True):
            lines.insert(place, added)
        result = "".join(lines)
        told = yaml.safe_load(result)
    except (yaml.YAMLError, LookupError, CannotEdit) as error:
        raise _by_hand(version, source, shadow) from error
    if told != wanted:
        raise _by_hand(version, source, shadow)
    return result


def _by_hand(version: str, source: Mapping[str, Any], shadow: Mapping[str, Any]) -> CannotEdit:
    return CannotEdit(
        "the file is not written as it would have to be to be edited; write by hand under "
        f"`versions`: `{version}: {_flow(source)}`, and under `traffic.shadow`: `- {_flow(shadow)}`"
    )


def _shadow(text: str, before: Mapping[str, Any], entry: str) -> tuple[int, str]:
    if before["traffic"].get("shadow"):
        return _into(text, ("traffic", "shadow"), [f"- {entry}"])
    if "shadow" in before["traffic"]:
        raise CannotEdit
    return _into(text, ("traffic",), ["shadow:", f"  - {entry}"])


def _into(text: str, path: tuple[str, ...], added: list[str]) -> tuple[int, str]:
    """The line before which to put lines, as the last entry of a block collection."""
    node: Any = yaml.compose(text)
    for key in path:
        node = next(value for name, value in node.value if name.value == key)
    if node.flow_style or not node.value:
        raise CannotEdit
    last = node.value[-1]
    first, end = last if isinstance(last, tuple) else (last, last)
    column = first.start_mark.column - (0 if isinstance(last, tuple) else 2)
    # A block's end mark is the next token; go back over blank lines and comments behind it.
    line = end.end_mark.line + (1 if end.end_mark.column or end.flow_style else 0)
    lines = text.splitlines()
    while line > 0 and (not lines[line - 1].strip() or lines[line - 1].lstrip().startswith("#")):
        line -= 1
    return line, "".join(f"{' ' * column}{one}\n" for one in added)


def _flow(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(
        dict(value), default_flow_style=True, sort_keys=False, width=10_000
    ).strip()
