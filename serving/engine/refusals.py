"""What control hears from the workers: who has refused what, and what it waits for itself.

Where control is on another node, the worker is asked.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from serving.engine.directory import DataDirectory
from serving.unix_http import ask

__all__ = [
    "OwnRefusal",
    "WorkerWord",
    "refusals_of_all",
    "what_control_waits_for",
    "what_workers_say",
]

_ASK_SECONDS: Final = 1.0

T = TypeVar("T")


class WorkerWord(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of control's `/api/v1/status`: `serving.control.admin.answers.WorkerStatus`."""

    worker: str
    pid: int
    revision: int
    refused_revision: int = 0
    refused_reason: str = ""


class _Status(msgspec.Struct):
    revision: int
    workers: list[WorkerWord]


class _Readiness(msgspec.Struct):
    reason: str = ""


async def what_workers_say(directory: DataDirectory) -> tuple[int, list[WorkerWord]]:
    """The published revision, and every worker's latest report; (0, []) if control is silent."""
    status = await _get(directory, "/api/v1/status", _Status)
    return (0, []) if status is None else (status.revision, status.workers)


async def what_control_waits_for(directory: DataDirectory) -> str:
    """Control's reason for not being ready, empty if it gives none."""
    readiness = await _get(directory, "/readyz", _Readiness)
    return "" if readiness is None else readiness.reason


def refusals_of_all(
    revision: int, words: list[WorkerWord], pids: Mapping[str, int | None]
) -> list[str]:
    """Each worker's reason, if all of them have refused `revision` and serve nothing else.

    Until somebody publishes another revision such a gateway cannot become ready.

    Args:
        revision: the published one, 0 for none.
        words: what workers last said; those of processes that are gone do not count.
        pids: the workers that should run, and their processes.
    """
    reasons = {
        word.worker: word.refused_reason
        for word in words
        if pids.get(word.worker) == word.pid
        and word.revision == 0
        and word.refused_revision == revision > 0
    }
    if set(reasons) != set(pids):
        return []
    return [f"{worker}: {reason}" for worker, reason in sorted(reasons.items())]


class _ReadyWord(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's `/readyz` on its private socket."""

    revision: int = 0
    refused_revision: int = 0
    refused_reason: str = ""


class OwnRefusal:
    """Why a worker says itself that it serves nothing; counts when it has said so twice in a row.

    Once could be about what was on its disk, before it has asked the store.
    """

    def __init__(self) -> None:
        self._before: tuple[int | None, int] = (None, 0)

    async def of(self, socket: Path, pid: int | None) -> str:
        """Ask it once more.

        Args:
            socket: its private one.
            pid: of the process that listens there.

        Returns:
            The reason, empty if there is none (yet).
        """
        answer = await ask(socket, "/readyz", timeout_seconds=_ASK_SECONDS)
        said = _ReadyWord()
        if answer is not None:
            with contextlib.suppress(msgspec.DecodeError):
                said = msgspec.json.decode(answer.body, type=_ReadyWord)
        before, self._before = self._before, (pid, said.refused_revision)
        sure = said.revision == 0 < said.refused_revision and self._before == before
        return said.refused_reason if sure else ""


async def _get(directory: DataDirectory, target: str, kind: type[T]) -> T | None:
    answer = await ask(
        directory.control_socket,
        target,
        headers=_credential(directory),
        timeout_seconds=_ASK_SECONDS,
    )
    try:
        return None if answer is None else msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError:  # another kind of answer, such as an error
        return None


def _credential(directory: DataDirectory) -> dict[str, str]:
    """Reading needs a token where tokens are configured; control's own one will do."""
    try:
        token = (directory.path / "admin.token").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return {}
    return {"Authorization": f"Bearer {token}"} if token.isprintable() and token else {}
