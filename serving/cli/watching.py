"""Applies a configuration directory whenever it changes: `sluice apply --watch`, `up --watch`.

The files are read every second instead of asking the kernel for events: events do not come from
network file systems and bind mounts, and not when the directory itself is a symbolic link that is
turned to another one, as git-sync does. A few small files cost less than a millisecond of CPU.

What is applied has stood still for `_SETTLED_SECONDS`, and control refuses it if it reads other
files than were looked at. So half of a change is not applied, unless whoever writes pauses in the
middle of it and the half passes `check`.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from serving.cli.admin_address import find_admin
from serving.cli.client import AdminClient
from serving.cli.output import CommandError, Unreachable
from serving.cli.where import Where
from serving.clock import Clock
from serving.config.load import content_digest
from serving.control.admin.answers import ApplyAnswer
from serving.control.admin.questions import ApplyRequest
from serving.errors import InvalidConfig, SluiceError

__all__ = ["Watcher", "keep_looking", "through_control"]

_LOOK_SECONDS: Final = 1.0
_SETTLED_SECONDS: Final = 2.0
_AGAIN_SECONDS: Final = 15.0
"""What was refused is tried again so often: a model file may arrive, a rollout may end."""


class Watcher:
    """One directory; `keep_looking` looks at it every second.

    Args:
        directory: the configuration directory; may be a symbolic link.
        apply: has the content with this digest applied, and says what came of it.
        say: tells a person; the second argument is True for what is wrong.
        clock: the time.
    """

    def __init__(
        self,
        directory: Path,
        apply: Callable[[str], str],
        say: Callable[[str, bool], None],
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._apply = apply
        self._say = say
        self._clock = clock
        self._served = ""
        self._seen = ""
        self._since = clock.monotonic()
        self._refused = ""
        self._tried = 0.0
        self._told: tuple[str, str] = ("", "")

    def look(self) -> None:
        """Apply what has come to stand still and is not served yet. Never raises a SluiceError."""
        content, now = content_digest(self._directory), self._clock.monotonic()
        if content != self._seen:
            self._seen, self._since = content, now
        if content == self._served or now - self._since < _SETTLED_SECONDS:
            return
        if content == self._refused and now - self._tried < _AGAIN_SECONDS:
            return
        self._tried = now
        try:
            words = self._apply(content)
        except SluiceError as error:
            self._refused = content
            self._tell(content, _words(error))
        else:
            self._served, self._refused, self._told = content, "", ("", "")
            self._say(words, False)

    def _tell(self, content: str, words: str) -> None:
        """Say what is wrong once per content, and again when it is something else."""
        if self._told != (content, words):
            self._told = content, words
            self._say(words, True)


async def keep_looking(watcher: Watcher) -> NoReturn:
    """Look every second; never returns."""
    while True:
        await asyncio.to_thread(watcher.look)
        await asyncio.sleep(_LOOK_SECONDS)


def through_control(
    directory: Path, where: Where, *, reason: str, wait: float
) -> Callable[[str], str]:
    """How a `Watcher` applies: by asking control, with the files that were looked at.

    Args:
        directory: the configuration directory.
        where: which gateway; it is looked for each time, since it may be started anew.
        reason: kept in the history.
        wait: seconds to wait for the workers.
    """

    def apply(digest: str) -> str:
        request = ApplyRequest(
            directory=str(directory.absolute()),
            expected_digest=digest,
            reason=reason,
            wait_seconds=wait,
        )
        with AdminClient(find_admin(where, directory), where.token()) as client:
            answer = client.post("/api/v1/config/apply", request, ApplyAnswer)
        return "\n".join([*answer.warnings, _outcome(answer)])

    return apply


def _outcome(answer: ApplyAnswer) -> str:
    if not answer.published:
        return f"revision {answer.revision} serves this already"
    missing = sum(not worker.applied for worker in answer.workers)
    words = f"published revision {answer.revision}"
    if missing:
        words += f"; {missing} of {len(answer.workers)} workers do not serve it (yet)"
    return f"{words}; {answer.roll.failed}" if answer.roll.failed else words


def _words(error: SluiceError) -> str:
    if isinstance(error, InvalidConfig):
        lines = [str(one) for one in error.problems] or [error.message]
        return "\n".join([*lines, "not applied: what is served goes on"])
    hint = f" ({error.hint})" if isinstance(error, CommandError) and error.hint else ""
    later = "; tried again" if isinstance(error, Unreachable) else ""
    return f"not applied: {error.message}{hint}{later}"
