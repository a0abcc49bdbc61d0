"""YAML text to a tree that knows its lines; nothing is constructed, so nothing can run.

A strict subset of YAML 1.2: one document, text keys, no tags, no duplicate keys. `no`, `on`
and `yes` are words. Aliases work, but a document counts in its expanded size, and a bomb is
refused before it is expanded: an alias costs one addition here.
"""

import re
from typing import Final

import msgspec
import yaml

from serving.config.problems import Problem

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "Mapping",
    "Node",
    "Scalar",
    "Sequence",
    "SyntaxProblem",
    "parse",
]

MAX_NODES: Final = 100_000
"""Values and keys in one file, aliases counted as what they stand for."""

MAX_DEPTH: Final = 50
"""Nesting of one file. The schema needs 6."""

# libyaml is several times faster, but not part of every PyYAML build.
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The YAML 1.2 core schema, less .inf and .nan: no option is either.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True} | dict.fromkeys(
    ("false", "False", "FALSE"), False
)
_INT: Final = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


class Scalar(msgspec.Struct):
    """A single value: `raw` as written, `value` as YAML 1.2 reads it. Lines count from 1."""

    raw: str
    value: str | int | float | bool | None
    line: int
    column: int
    size: int = 1
    height: int = 0


class Sequence(msgspec.Struct):
    """A list."""

    items: list["Node"]
    line: int
    column: int
    size: int = 1
    height: int = 1


class Mapping(msgspec.Struct):
    """A mapping; keys are text as written, in file order."""

    entries: dict[str, tuple[Scalar, "Node"]]
    line: int
    column: int
    size: int = 1
    height: int = 1


Node = Scalar | Sequence | Mapping


class SyntaxProblem(Exception):
    """The file cannot be read as a tree at all. Carries a Problem and never leaves this package."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def parse(text: str, file: str) -> tuple[Node, list[Problem]]:
    """Read one document.

    Returns:
        The tree and the problems that leave it readable (duplicate keys: the first one wins).
        An empty file is an empty mapping.

    Raises:
        SyntaxProblem: not YAML, or more of it than the bounds above allow.
    """
    composer = _Composer(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.feed(event)
    except (yaml.YAMLError, UnicodeError) as error:
        raise SyntaxProblem(_translate(error, file)) from None
    return composer.root or Mapping({}, 1, 1), composer.problems


class _Open(msgspec.Struct):
    """A collection whose end has not been seen; `key` waits for its value."""

    node: Sequence | Mapping
    anchor: str | None
    key: Scalar | None = None


class _Composer:
    """Builds the tree from parser events with an explicit stack, so depth costs no recursion."""

    def __init__(self, file: str) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._file = file
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def feed(self, event: yaml.Event) -> None:
        """Take the parser's next event."""
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._refuse(line, column, "a second document; keep one per file")
            case yaml.AliasEvent():
                self._add(self._resolve(event.anchor, line, column), line, column)
            case yaml.ScalarEvent():
                self._refuse_tag(event, line, column)
                plain = event.implicit[0]
                value = _resolve(event.value) if plain else event.value
                node = Scalar(event.value, value, line, column)
                if event.anchor is not None:
                    self._anchors[event.anchor] = node
                self._add(node, line, column)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._refuse_tag(event, line, column)
                if len(self._stack) >= MAX_DEPTH:
                    raise self._refuse(line, column, f"nested deeper than {MAX_DEPTH}")
                sequence = isinstance(event, yaml.SequenceStartEvent)
                opened = Sequence([], line, column) if sequence else Mapping({}, line, column)
                self._anchors.pop(event.anchor or "", None)  # until it ends, it is nobody's alias
                self._stack.append(_Open(opened, event.anchor))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                ended = self._stack.pop()
                if ended.anchor is not None:
                    self._anchors[ended.anchor] = ended.node
                self._add(ended.node, ended.node.line, ended.node.column)

    def _add(self, node: Node, line: int, column: int) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        parent = top.node
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.size > MAX_NODES:
            raise self._refuse(line, column, f"more than {MAX_NODES:,} values (aliases expanded)")
        if parent.height + len(self._stack) > MAX_DEPTH + 1:
            raise self._refuse(line, column, f"nested deeper than {MAX_DEPTH} (aliases expanded)")
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif top.key is None:
            if not isinstance(node, Scalar):
                raise self._refuse(line, column, "a key must be text")
            top.key = node
        else:
            self._pair(parent, top.key, node)
            top.key = None

    def _pair(self, parent: Mapping, key: Scalar, node: Node) -> None:
        if first := parent.entries.get(key.raw):
            message = f"the key `{key.raw[:80]}` is given twice (first in line {first[0].line})"
            self.problems.append(_problem(self._file, key.line, key.column, message))
        else:
            parent.entries[key.raw] = (key, node)

    def _resolve(self, anchor: str | None, line: int, column: int) -> Node:
        node = self._anchors.get(anchor or "")
        if node is None:
            raise self._refuse(line, column, f"the alias `*{anchor}` stands for nothing here")
        return node

    def _refuse_tag(self, event: yaml.NodeEvent, line: int, column: int) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and not (tag == "!" and isinstance(event, yaml.ScalarEvent)):
            shown = tag.replace("tag:yaml.org,2002:", "!!")[:60]
            message = f"tags such as `{shown}` are not allowed"
            raise self._refuse(line, column, message, "put a text in quotes instead")

    def _refuse(self, line: int, column: int, message: str, suggestion: str = "") -> SyntaxProblem:
        return SyntaxProblem(_problem(self._file, line, column, message, suggestion))


def _resolve(raw: str) -> str | int | float | bool | None:
    if raw in _NULL:
        return None
    if raw in _BOOL:
        return _BOOL[raw]
    if _INT.match(raw):
        base = {"0o": 8, "0x": 16}.get(raw[:2], 10)
        # Longer ones cannot be an option; Python also refuses to read them at 4300 digits.
        return int(raw, base) if len(raw) <= 40 else raw
    if _FLOAT.match(raw):
        number = float(raw)
        return raw if number in (float("inf"), float("-inf")) else number
    return raw


def _translate(error: yaml.YAMLError | UnicodeError, file: str) -> Problem:
    """Say what the parser found, at its own mark, without echoing the file."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        message = ", ".join(part for part in (error.problem, error.context) if part)
        return _problem(file, mark.line + 1, mark.column + 1, f"not valid YAML: {message}")
    if isinstance(error, yaml.reader.ReaderError):
        return _problem(file, 0, 0, f"not valid YAML: {error.reason}")
    return _problem(file, 0, 0, "not valid YAML")


def _problem(file: str, line: int, column: int, message: str, suggestion: str = "") -> Problem:
    return Problem(file=file, line=line, column=column, message=message, suggestion=suggestion)
