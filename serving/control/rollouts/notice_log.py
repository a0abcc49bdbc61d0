"""What is still to be told of a rollout: lines of a file, and what follows from them.

`DATA/rollouts/<model>/<id>/notices.jsonl`, append-only. A `Notice` is written before anything is
sent, a `Settled` once a target has taken it or is given up. So control may die at any point: what
is not settled is sent again, the same bytes with the same id.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from serving.config.schema import NotifyConfig
from serving.files import append_line

__all__ = [
    "Notice",
    "Settled",
    "Target",
    "append",
    "read",
    "targets_of",
    "unsettled",
]


class Target(msgspec.Struct, frozen=True):
    """Where notices go: a webhook and the file of its key, or a file."""

    webhook: str = ""
    secret_file: str = ""
    file: str = ""

    @property
    def words(self) -> str:
        """For logs: no more of a URL than its host, since paths of webhooks are often secrets."""
        if self.file:
            return f"the file {self.file}"
        return "the webhook at " + self.webhook.partition("://")[2].partition("/")[0]


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice", tag_field="line"):
    """One thing to tell. `at` is seconds since 1970."""

    id: str
    at: float
    model: str
    rollout: str
    revision: int
    event: str
    """The CloudEvent, as it is sent."""

    targets: list[Target]


class Settled(msgspec.Struct, frozen=True, kw_only=True, tag="settled", tag_field="line"):
    """A target has a notice, or never will."""

    id: str
    target: Target
    at: float
    outcome: Literal["delivered", "given_up"]
    attempts: int
    said: str
    """What became of the last attempt."""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final[msgspec.json.Decoder[Notice | Settled]] = msgspec.json.Decoder(Notice | Settled)


def targets_of(notify: Iterable[NotifyConfig], names: Iterable[str]) -> list[Target]:
    """Who hears of something that has these names; each once."""
    told = set(names)
    found = {
        Target(webhook=one.webhook, secret_file=one.secret_file if one.webhook else "")
        if one.webhook
        else Target(file=one.file): None
        for one in notify
        if told.intersection(one.events) and (one.webhook or one.file)
    }
    return list(found)


def unsettled(lines: Iterable[Notice | Settled]) -> list[tuple[Notice, Target]]:
    """What is still to be told to whom, in the order in which it was written."""
    waiting: dict[tuple[str, Target], Notice] = {}
    for line in lines:
        if isinstance(line, Notice):
            for target in line.targets:
                waiting[line.id, target] = line
        else:
            waiting.pop((line.id, line.target), None)
    return [(notice, target) for (_, target), notice in waiting.items()]


def read(path: Path) -> Iterator[Notice | Settled]:
    """Every whole line; nothing if there is no file. Raises OSError."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):  # cut off by a crash
            yield _DECODER.decode(line)


def append(path: Path, line: Notice | Settled) -> None:
    """Keep a line, and wait for the disk. Raises OSError: then it is not kept."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    append_line(path, _ENCODER.encode(line))
