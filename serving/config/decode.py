"""A YAML tree to one of the schema's structs, with every mistake in it and not just the first.

The walk follows `msgspec.inspect`, so an option exists once: in `schema`. Whatever it finds
in order is converted by msgspec itself, whose verdict is the last word.
"""

from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from serving.config.describe import expected, refusal
from serving.config.problems import Location, Path, Problem, nearest, render_path
from serving.config.units import ByteSize, Seconds
from serving.config.yaml_source import Mapping, Node, Scalar, Sequence, SyntaxProblem, parse

__all__ = ["MAX_PROBLEMS", "Decoded", "decode"]

T = TypeVar("T", bound=msgspec.Struct)


class Decoded(msgspec.Struct):
    """What became of one file. `value` is None exactly if `problems` is not empty."""

    value: Any
    problems: list[Problem]
    locations: dict[tuple[str, Path], Location]


def decode(text: str, file: str, kind: type[T]) -> Decoded:
    """Read YAML text as a `kind`; `file` is the name problems carry. Raises nothing."""
    try:
        tree, problems = parse(text, file)
    except SyntaxProblem as error:
        return Decoded(None, [error.problem], {})
    walk = _Walk(file)
    walk.problems = problems
    try:
        plain = walk.visit(tree, inspect.type_info(kind), ())
    except _Enough:
        walk.problems.append(Problem(file=file, message="and more; mend the ones above first"))
    if walk.problems:
        return Decoded(None, walk.problems, walk.locations)
    try:
        value = msgspec.convert(plain, kind, dec_hook=_dec_hook)
    except msgspec.ValidationError as error:
        return Decoded(None, [Problem(file=file, message=str(error))], walk.locations)
    return Decoded(value, [], walk.locations)


def _dec_hook(kind: type, value: object) -> Any:
    if kind in (Seconds, ByteSize):
        return kind.parse(value)
    raise NotImplementedError(f"{kind.__name__} cannot be written in YAML")


MAX_PROBLEMS: Final = 100
"""Mistakes reported per file. Whoever has more has given the wrong file."""


class _Enough(Exception):
    """`MAX_PROBLEMS` are found."""


# Stands for a value that has a problem already; it never reaches msgspec.
_WRONG: Final = object()

_SCALARS: Final = (
    inspect.StrType,
    inspect.IntType,
    inspect.FloatType,
    inspect.BoolType,
    inspect.NoneType,
    inspect.LiteralType,
    inspect.CustomType,
)


class _Walk:
    def __init__(self, file: str) -> None:
        self.problems: list[Problem] = []
        self.locations: dict[tuple[str, Path], Location] = {}
        self._file = file

    def visit(self, node: Node, info: inspect.Type, path: Path, key: Scalar | None = None) -> Any:
        """Check one value against its type; return it as plain data."""
        self._locate(path, key if key is not None and not isinstance(node, Scalar) else node)
        info = _member(node, info)
        match node, info:
            case Mapping(), inspect.StructType():
                return self._struct(node, info, path)
            case Mapping(), inspect.DictType():
                return self._dict(node, info, path)
            case Sequence(), inspect.ListType():
                return self._list(node, info, path)
            case Scalar(), _ if isinstance(info, _SCALARS):
                return self._scalar(node, info, path)
        shown = "a list" if isinstance(node, Sequence) else "a mapping"
        if isinstance(node, Scalar):
            shown = f"`{node.raw[:40]}`" if node.raw else "nothing"
        return self._wrong(node, path, f"expected {expected(info)}, got {shown}")

    def _struct(self, node: Mapping, info: inspect.StructType, path: Path) -> dict[str, Any]:
        fields = {field.encode_name: field for field in info.fields}
        missing = {field.encode_name for field in info.fields if field.required}
        missing -= node.entries.keys()
        plain: dict[str, Any] = {}
        for name, (key, value) in node.entries.items():
            if name in fields:
                plain[name] = self.visit(value, fields[name].type, (*path, name), key)
                continue
            near = nearest(name, missing) or nearest(name, fields.keys() - node.entries.keys())
            hint = f"did you mean `{near}`?" if near else "known here: " + ", ".join(fields)
            self._wrong(key, (*path, name), f"unknown key `{name[:80]}`", hint)
            if near:
                # A missing key and its misspelling are one mistake; what is below may hold more.
                missing.discard(near)
                self.visit(value, fields[near].type, (*path, name), key)
        for name in (field.encode_name for field in info.fields if field.encode_name in missing):
            what = expected(fields[name].type)
            self._wrong(self._anchor(node, path), path, f"missing key `{name}` ({what})")
        return plain

    def _dict(self, node: Mapping, info: inspect.DictType, path: Path) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, (key, value) in node.entries.items():
            if key.value is None:
                self._wrong(key, (*path, name), "a key must be text")
            elif why := refusal(key, info.key_type):
                self._wrong(key, (*path, name), *why)
            plain[name] = self.visit(value, info.value_type, (*path, name), key)
        if len(plain) < (info.min_length or 0):
            self._wrong(self._anchor(node, path), path, f"expected {expected(info)}")
        return plain

    def _list(self, node: Sequence, info: inspect.ListType, path: Path) -> list[Any]:
        if len(node.items) < (info.min_length or 0):
            self._wrong(node, path, f"expected {expected(info)}")
        return [
            self.visit(item, info.item_type, (*path, position))
            for position, item in enumerate(node.items)
        ]

    def _scalar(self, node: Scalar, info: inspect.Type, path: Path) -> Any:
        if why := refusal(node, info):
            return self._wrong(node, path, *why)
        # A digest or a name may consist of digits only; as text it is what was written.
        return node.raw if isinstance(info, inspect.StrType) else node.value

    def _locate(self, path: Path, node: Node) -> None:
        self.locations[self._file, path] = Location(self._file, node.line, node.column)

    def _anchor(self, node: Node, path: Path) -> Location | Node:
        return self.locations.get((self._file, path), node)

    def _wrong(
        self, place: Location | Node, path: Path, message: str, suggestion: str = ""
    ) -> object:
        self.problems.append(
            Problem(
                file=self._file,
                line=place.line,
                column=place.column,
                path=render_path(path),
                message=message,
                suggestion=suggestion,
            )
        )
        if len(self.problems) >= MAX_PROBLEMS:
            raise _Enough
        return _WRONG


def _member(node: Node, info: inspect.Type) -> inspect.Type:
    """The member of a union that a value of this form is meant for."""
    if not isinstance(info, inspect.UnionType):
        return info
    if isinstance(node, Mapping):
        wanted: tuple[type, ...] = (inspect.StructType, inspect.DictType)
    elif isinstance(node, Sequence):
        wanted = (inspect.ListType,)
    else:
        wanted = {
            bool: (inspect.BoolType,),
            int: (inspect.IntType, inspect.FloatType, inspect.StrType),
            float: (inspect.FloatType, inspect.StrType),
            str: (inspect.LiteralType, inspect.CustomType, inspect.StrType),
        }.get(type(node.value), (inspect.NoneType,))
    members = [kind for form in wanted for kind in info.types if isinstance(kind, form)]
    if members:
        return members[0]
    others = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]
    return others[0] if len(others) == 1 else info  # the one choice gives the exact message
