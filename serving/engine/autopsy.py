"""What a worker died of: read what it left, write it down, say it.

Runs between a worker's death and its next start, in whichever engine supervises it.
"""

import asyncio
import contextlib
import signal
from collections.abc import Collection
from pathlib import Path

import msgspec

from serving.clock import Clock, SystemClock
from serving.config.keys import node_name
from serving.config.snapshot_codec import decode_snapshot
from serving.errors import InvalidConfig
from serving.quarantine import last_words, marks, register
from serving.quarantine.decision import Crash, is_crash, suspects
from serving.traffic.rolled import effective

__all__ = ["Autopsy", "Verdict", "not_examined"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an autopsy found.

    `words` complete the sentence of how the process ended; `notes` are lines for the log.
    `cured`: the cause will not be there at the next start.
    """

    words: str = ""
    notes: tuple[str, ...] = ()
    cured: bool = False


async def not_examined(returncode: int) -> Verdict:
    """For processes that run no models."""
    del returncode
    return Verdict()


class Autopsy:
    """Examines the deaths of one worker; call it with the exit code of each.

    Args:
        data: the data directory.
        worker: the worker's name.
    """

    def __init__(self, data: Path, worker: str, clock: Clock | None = None) -> None:
        self._data = data
        self._worker = worker
        self._clock = clock if clock is not None else SystemClock()

    async def __call__(self, returncode: int) -> Verdict:
        """Find out which version it was, and quarantine that if it was not the first time."""
        if not is_crash(returncode):
            return Verdict()
        return await asyncio.to_thread(self._examine, signal.Signals(-returncode).name)

    def _examine(self, killed_by: str) -> Verdict:
        run = self._data / "run"
        marked = marks.read(run / f"{self._worker}.running")
        stacks = last_words.keep(run / f"{self._worker}.crash")
        thread = last_words.crashed_thread(stacks)
        unclear = thread is None and len(marked) > 1
        found = suspects(marked, thread, _production(self._data) if unclear else ())
        if not found:
            return Verdict(notes=(f"its last stacks are in {stacks}",) if stacks.exists() else ())
        names = " or ".join(
            f"{'loading' if one.loading else 'running'} {one.model}/{one.version}" for one in found
        )
        crash = Crash(
            at=self._clock.wall(),
            worker=self._worker,
            signal=killed_by,
            suspects=found,
            node=node_name(),
        )
        try:
            new = register.record(self._data, crash)
        except OSError as error:
            note = f"the crash cannot be written down: {error.strerror}"
            return Verdict(words=f"while {names}", notes=(note,))
        return Verdict(
            words=f"while {names}",
            notes=tuple(
                f"{one.model}/{one.version} is quarantined: {one.reason}. It gets no more "
                f"requests; `sluice quarantine lift {one.model} {one.version}` lets it back"
                for one in new
            ),
            cured=bool(new),
        )


def _production(data: Path) -> Collection[tuple[str, str]]:
    with contextlib.suppress(OSError, InvalidConfig):
        models = effective(decode_snapshot((data / "snapshot.json").read_bytes()))
        return {(name, config.traffic.production) for name, config in models.items()}
    return ()
