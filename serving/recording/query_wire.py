"""What is said between a query's process and who asks."""

from typing import Literal

import msgspec

from serving.recording.reading import FileDamage

__all__ = ["Message", "Request"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A question.

    `log` is the log's folder, `memory` in bytes, `since` and `until` in seconds since 1970;
    `parent` is the pid that asks.
    """

    sql: str
    log: str
    memory: int
    parent: int
    since: float | None = None
    until: float | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of what is told beside the answer: progress, damage, or why there is none."""

    stage: str = ""
    percent: float | None = None
    damages: list[FileDamage] = []
    error: str = ""
    kind: Literal["", "refused", "failed", "memory"] = ""
