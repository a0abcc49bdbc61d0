"""What is wrong with a configuration, and where: file, line, column and the path of the key."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final, Literal

import msgspec

from serving.errors import InvalidConfig

__all__ = [
    "Location",
    "Path",
    "Problem",
    "Severity",
    "Sources",
    "did_you_mean",
    "in_file_order",
    "nearest",
    "raise_errors",
    "render_path",
]

Path = tuple[str | int, ...]
"""Keys and list positions from the top of a file down to a value."""

Severity = Literal["error", "warning"]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+\Z")


class Location(msgspec.Struct, frozen=True, order=True):
    """A place in a file. `file` is relative to the configuration directory, counted from 1."""

    file: str
    line: int = 0
    column: int = 0


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One mistake. `line` 0: the whole file; `path` empty: nothing more exact than that."""

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    message: str
    suggestion: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        """`file:line:column: severity: path: message (suggestion)`, as compilers write it."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        subject = f"{self.path}: " if self.path else ""
        hint = f" ({self.suggestion})" if self.suggestion else ""
        line = f"{place}: {self.severity}: {subject}{self.message}{hint}"
        # One problem, one line, and no escape sequence from a file steers the terminal.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class Sources:
    """Where each value of the decoded configuration was written."""

    def __init__(self, locations: dict[tuple[str, Path], Location] | None = None) -> None:
        self._locations = dict(locations or {})

    def merge(self, locations: dict[tuple[str, Path], Location]) -> None:
        """Add the places of one more file."""
        self._locations.update(locations)

    def at(self, file: str, path: Path) -> Location:
        """The place of a value, or of the nearest value around it that was written down."""
        for length in range(len(path), -1, -1):
            if found := self._locations.get((file, path[:length])):
                return found
        return Location(file)

    def has(self, file: str, path: Path) -> bool:
        """Whether a value was written down, and is not a default."""
        return (file, path) in self._locations

    def problem(
        self,
        file: str,
        path: Path,
        message: str,
        suggestion: str = "",
        severity: Severity = "error",
    ) -> Problem:
        """A problem at the place of a value."""
        place = self.at(file, path)
        return Problem(
            file=file,
            line=place.line,
            column=place.column,
            path=render_path(path),
            message=message,
            suggestion=suggestion,
            severity=severity,
        )


def render_path(path: Path) -> str:
    """Write a path as `traffic.shadow[0].version`; unusual keys as `versions["v1.2"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _BARE_KEY.match(step):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """The most similar known word, or an empty string."""
    # Sorted, so that equally near words give the same answer every time.
    return next(iter(get_close_matches(word, sorted(known), n=1)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A suggestion for a misspelt word: the nearest known one, or else all of them."""
    words = sorted(known)
    if near := nearest(word, words):
        return f"did you mean `{near}`?"
    return "known here: " + ", ".join(f"`{one}`" for one in words[:20]) if words else ""


def raise_errors(problems: list[Problem]) -> None:
    """Raise InvalidConfig with every problem, in file order, if one of them is an error."""
    ordered = in_file_order(problems)
    errors = [problem for problem in ordered if problem.severity == "error"]
    if errors:
        more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise InvalidConfig(f"{errors[0]}{more}", tuple(ordered))


def in_file_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sort by file, line and column, the order in which a person mends them."""
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))
