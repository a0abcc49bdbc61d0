"""One child process, kept alive: the hands of `serving.engine.lifecycle`.

The child is started in a session of its own, so that a Ctrl-C in the terminal reaches only
the engine, which then drains in order. It ties its life to ours (`serving.lifeline`). Signals
go to the process we started and have not reaped, never to a bare pid.
"""

import asyncio
import contextlib
import enum
import os
import random
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from serving.clock import Clock, SystemClock
from serving.engine import lifecycle
from serving.engine.autopsy import Verdict, not_examined
from serving.engine.lifecycle import Event, Silence, State
from serving.engine.log_lines import LineSink, LineSplitter
from serving.engine.report import ProcessReport
from serving.errors import EngineError

__all__ = ["Heard", "ProcessSpec", "SupervisedProcess", "exit_words", "explain_full_disk"]

PROBE_SECONDS: Final = 0.5
_STARTING_PROBE_SECONDS: Final = 0.02
_LINES_KEPT: Final = 20
_LAST_WORDS_SECONDS: Final = 1.0


class Heard(enum.Enum):
    """What a probe brought back."""

    NOTHING = enum.auto()
    """No answer, or not one worth keeping the process for."""

    BUSY = enum.auto()
    """Alive but not usable yet (a store loading its file)."""

    WELL = enum.auto()
    """Alive and usable."""


async def _nothing() -> None:
    pass


def _always(line: str) -> bool:
    del line
    return True


def _unexplained(lines: list[str]) -> str:
    del lines
    return ""


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and how to tell whether it is well. Times in seconds.

    `environment` is added to ours; what others must not read belongs there and not into
    `command`, which every user of the machine can see. `probe` asks the process once and may
    take as long as it likes. `silent_seconds` without an answer end a process that was ready,
    `start_seconds` one that never was; `drain_seconds` end one that was asked to stop. `prepare`
    runs before every start and may refuse with EngineError. `explain` turns the last lines of a
    dead process into advice, or an empty string; `autopsy` is told the exit code of one that
    died by itself. Lines that are not `worth_showing` are not passed on.
    """

    name: str
    command: tuple[str, ...]
    probe: Callable[[], Awaitable[Heard]]
    silent_seconds: float
    start_seconds: float
    drain_seconds: float
    environment: Mapping[str, str] = {}
    prepare: Callable[[], Awaitable[None]] = _nothing
    explain: Callable[[list[str]], str] = _unexplained
    autopsy: Callable[[int], Awaitable[Verdict]] = not_examined
    worth_showing: Callable[[str], bool] = _always


def explain_full_disk(lines: list[str]) -> str:
    """Advice for any process whose last words are that the disk is full; empty otherwise."""
    full = any("No space left on device" in line for line in lines)
    return "the disk that holds the data directory is full" if full else ""


def exit_words(returncode: int) -> str:
    """How a process ended, in words."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


class SupervisedProcess:
    """Runs `spec` until stopped; `on_change` is called after every change of `report`."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        lines: LineSink,
        on_change: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self.spec: Final = spec
        self.report = ProcessReport(name=spec.name, state=State.STOPPED)
        self.explanation = ""
        """Advice drawn from the latest death; empty if there is none or it has come back."""

        self.last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._lines = lines
        self._on_change = on_change
        self._clock = clock if clock is not None else SystemClock()
        self._fraction = fraction
        self._child: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop_asked = asyncio.Event()
        self._ready_since: float | None = None
        self._why = ""
        self._last_signal = signal.SIGTERM

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self.report.state

    def start(self) -> "asyncio.Task[None]":
        """Begin supervising; the task ends when the process is STOPPED."""
        self._move(Event.START)
        self._task = asyncio.create_task(self._keep_running(), name=f"supervise {self.spec.name}")
        return self._task

    async def stop(self, *, politely: Callable[[], Awaitable[bool]] | None = None) -> None:
        """SIGTERM, wait for the drain, SIGKILL. Returns when the process is gone.

        `politely` asks it to drain in another way, and says whether it was heard.
        """
        if self._task is None:
            return
        self._ask_to_stop()
        if politely is None or not await politely():
            self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait({self._task}, timeout=self.spec.drain_seconds)
        if not done:
            self._say(f"still busy after {self.spec.drain_seconds:g} s; killed")
            self._signal(signal.SIGKILL)
        await self._task

    def kill(self) -> None:
        """SIGKILL, now and for good; the task ends a moment later."""
        if self._task is not None:
            self._ask_to_stop()
            self._signal(signal.SIGKILL)

    def _ask_to_stop(self) -> None:
        if self.state not in {State.DRAINING, State.STOPPED}:
            self._move(Event.STOP_ASKED)
            self._stop_asked.set()

    async def _keep_running(self) -> None:
        while True:
            if await self._one_life():
                return
            delay = lifecycle.back_off_seconds(self.report.failures, self._fraction())
            self._say(f"{self.report.last_exit}; starting it again in {delay:.1f} s")
            # Not wait_for: on Python 3.11 it may swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stop_asked.wait()
            if self.state is State.STOPPED:
                return
            self._move(Event.BACK_OFF_OVER, restarts=self.report.restarts + 1)

    async def _one_life(self) -> bool:
        """From start to exit; True if that was the end."""
        self._ready_since, self._why = None, ""
        self.last_lines.clear()
        cured = False
        try:
            await self.spec.prepare()
            self._child = child = await asyncio.create_subprocess_exec(
                *self.spec.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **self.spec.environment},
            )
        except OSError as error:
            words = f"cannot be started: {error.strerror or error}"
        except EngineError as error:
            words = self.explanation = error.message
        else:
            self._set(pid=child.pid)
            if self.state is State.DRAINING:  # asked to stop while it was being started
                self._signal(self._last_signal)
            returncode = await self._watch(child)
            words = exit_words(returncode)
            self._child = None
            self.explanation = self.spec.explain(list(self.last_lines))
            if not self._why and self.state is not State.DRAINING:  # it was not us
                verdict = await self.spec.autopsy(returncode)
                words, cured = f"{words} {verdict.words}".rstrip(), verdict.cured
                for note in verdict.notes:
                    self._say(note)
        if self._why:
            words += f" ({self._why})"
        ready = 0.0 if self._ready_since is None else self._clock.monotonic() - self._ready_since
        stopping = self.state is State.DRAINING
        failures = 0 if stopping else lifecycle.failures_after_exit(self.report.failures, ready)
        if cured:  # what went before will not happen again
            failures = min(failures, 1)
        self._move(Event.EXITED, pid=None, last_exit=words, failures=failures)
        return stopping

    async def _watch(self, child: asyncio.subprocess.Process) -> int:
        exited = asyncio.create_task(child.wait())
        reading = asyncio.create_task(self._read(child))
        try:
            await self._probe_until(exited)
            return await exited
        finally:
            if child.returncode is None:
                child.kill()
                await exited
            # Grandchildren may keep the pipe open; they get a moment for their last words.
            await asyncio.wait({reading}, timeout=_LAST_WORDS_SECONDS)
            if not reading.done():
                reading.cancel()
                await asyncio.wait({reading})
            _transport(child).close()

    async def _probe_until(self, exited: "asyncio.Task[int]") -> None:
        silence = self._silence(self.spec.start_seconds)
        while not exited.done():
            asking = asyncio.ensure_future(self.spec.probe())
            try:
                while not asking.done() and not exited.done():
                    await asyncio.wait(
                        {asking, exited}, timeout=PROBE_SECONDS, return_when="FIRST_COMPLETED"
                    )
                    if not asking.done():
                        self._tick(silence, answered=False)
                heard = asking.result() if asking.done() else Heard.NOTHING
            finally:
                asking.cancel()
            if exited.done():
                return
            if heard is Heard.WELL and self.state is State.STARTING:
                self._ready_since = self._clock.monotonic()
                silence = self._silence(self.spec.silent_seconds)
                self.explanation = ""
                self._move(Event.ANSWERED)
            self._tick(silence, answered=heard is not Heard.NOTHING)
            pause = _STARTING_PROBE_SECONDS if self.state is State.STARTING else PROBE_SECONDS
            await asyncio.wait({exited}, timeout=pause)

    def _silence(self, bound: float) -> Silence:
        longest = 2 * PROBE_SECONDS
        return Silence(bound, longest_tick=longest, now=self._clock.monotonic())

    def _tick(self, silence: Silence, *, answered: bool) -> None:
        over = silence.tick(self._clock.monotonic(), answered=answered)
        if over and self.state in {State.STARTING, State.READY}:
            once = "silent" if self.state is State.READY else "not ready"
            self._why = f"{once} for {silence.seconds:.1f} s"
            self._say(f"{self._why}; killing it")
            self._move(Event.FELL_SILENT)
            self._signal(signal.SIGKILL)

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        splitter = LineSplitter()
        while data := await child.stdout.read(1 << 16):
            self._heard_lines(splitter.feed(data))
        self._heard_lines(splitter.finish())

    def _heard_lines(self, lines: list[str]) -> None:
        self.last_lines.extend(lines)
        for line in filter(self.spec.worth_showing, lines):
            self._lines(self.spec.name, line)

    def _signal(self, number: signal.Signals) -> None:
        self._last_signal = number
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.send_signal(number)

    def _say(self, text: str) -> None:
        self._lines("engine", f"{self.spec.name}: {text}")

    def _move(self, event: Event, **changes: Any) -> None:
        self._set(state=lifecycle.after(self.state, event), since=self._clock.wall(), **changes)

    def _set(self, **changes: Any) -> None:
        self.report = msgspec.structs.replace(self.report, **changes)
        self._on_change()


def _transport(child: asyncio.subprocess.Process) -> asyncio.SubprocessTransport:
    # The public class offers no way to close the pipes of a child whose own children hold them.
    return child._transport  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001
