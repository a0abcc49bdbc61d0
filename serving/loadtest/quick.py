"""A scenario from a few words instead of a file: one model, one rate, one phase. Pure.

What is made is the text of a scenario file, so that it is read, judged and reported as any other,
and can be kept and grown into one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from serving.config.units import Seconds
from serving.errors import SluiceError
from serving.types import TensorMetadata

__all__ = ["Keys", "NoEntity", "Quick", "entity_of", "keys_of", "scenario_text"]

_KEYS: Final = ("INT64", "INT32", "BYTES")
"""Datatypes of entity keys, as a scenario has them."""

_RANGE: Final = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")
_NO_TEXTS: Final = ("true", "false", "yes", "no", "on", "off", "y", "n", "null")
_PHASE: Final = "steady"


class NoEntity(SluiceError):
    """The model takes nothing that could be an entity's key."""


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Which entities are asked for: `count` numbers from `first` on."""

    datatype: str = "INT64"
    first: int = 1
    count: int = 1000


class Quick(msgspec.Struct, frozen=True, kw_only=True):
    """A load test in a few words; texts are as in a scenario file."""

    target: str
    model: str
    entity: Mapping[str, Keys] = {}
    """Empty with `body`."""

    body: str = ""
    rows: Sequence[int] = (1,)
    rate: float = 50.0
    seconds: float = 10.0
    connections: int = 16
    deadline: str = ""
    slos: Sequence[tuple[str, str]] = ()
    """Key of an SLO, and its value as YAML."""


def keys_of(text: str) -> Keys:
    """Read `1..1000`. Raises ValueError."""
    found = _RANGE.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(f"`{text}` is no range of keys, such as person_id=1..1000")
    first, last = int(found[1]), int(found[2])
    return Keys(first=first, count=last - first + 1)


def entity_of(model: str, declared: Sequence[TensorMetadata]) -> tuple[str, str]:
    """Name and datatype of the input that names entities; a gateway declares it first.

    Raises:
        NoEntity: no input is a list of keys.
    """
    for one in declared:
        if one.datatype in _KEYS and len(one.shape) == 1:
            return one.name, one.datatype
    takes = ", ".join(f"{one.name} {one.datatype} {list(one.shape)}" for one in declared)
    raise NoEntity(f"model `{model}` takes no entity key, but {takes or 'nothing'}")


def scenario_text(quick: Quick) -> str:
    """The scenario file."""
    lines = [
        "schema_version: 1",
        "name: quick",
        f"target: {_quoted(quick.target)}",
        f"connections: {quick.connections}",
        *([f"deadline: {quick.deadline}"] if quick.deadline else []),
        "requests:",
        f"  - model: {_quoted(quick.model)}",
    ]
    if quick.body:
        lines.append(f"    body: {_quoted(quick.body)}")
    else:
        lines.append(f"    rows: {list(quick.rows)}")
        lines.append("    entity:")
        lines += [
            f"      {_quoted(name)}: {{datatype: {keys.datatype}, first: {keys.first}, "
            f"keys: {keys.count}, zipf: 1}}"
            for name, keys in quick.entity.items()
        ]
    lines += [
        "phases:",
        f"  - {{name: {_PHASE}, for: {Seconds(quick.seconds)}, rate: {_number(quick.rate)}}}",
    ]
    if quick.slos:
        lines.append("slos:")
        lines += [f"  - {{{_quoted(key)}: {value}}}" for key, value in quick.slos]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value}"


def _quoted(text: str) -> str:
    """As YAML has it; JSON's strings are YAML's."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", text) and text.lower() not in _NO_TEXTS
    return text if plain else json.dumps(text)
