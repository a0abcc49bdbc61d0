"""Tells of rollouts: webhooks and files, each in order, each again until it is taken.

event → written to the disk → sent, again and again, by one task a target → settled on the disk
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from serving.clock import Clock
from serving.config.schema import RolloutConfig
from serving.control.outbound import DeliveryFailed, Reach, post_event, read_secret
from serving.control.patience import GIVE_UP_SECONDS, next_attempt
from serving.control.rollouts import notice_log
from serving.control.rollouts.notice_event import event_of, identifier_of, names_of
from serving.control.rollouts.notice_log import Notice, Settled, Target
from serving.files import append_line
from serving.rollout.standing import RolloutStanding
from serving.rollout.state import Event
from serving.tasks import end

__all__ = ["Notices"]

_LOOK_SECONDS: Final = 1.0
_ATTEMPT_SECONDS: Final = 10.0
_MOST_WAITING: Final = 1000
_FILE: Final = "notices.jsonl"
_LOG = logging.getLogger("notices")


class Notices:
    """One per control process.

    At most 1,000 notices wait for a target. Past that the oldest is given up, and that is counted.

    Args:
        folder: of rollouts, with a folder for each model and in it one for each rollout.
        data: the data directory, where files of `notify` are.
        directory: of the configuration that is served, where `secret_file` is. Reads files.
        reach: where webhooks may lead.
        source: URI of the admin port.
        clock: the time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data: Path,
        directory: Callable[[], Path],
        reach: Callable[[], Reach],
        source: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._data = data
        self._directory = directory
        self._reach = reach
        self._source = source
        self._clock = clock
        self._lines: dict[Target, _Line] = {}
        self._told: set[str] = set()
        self._loaded = False
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Notices by model and what became of them, since this process started: told, delivered,
        failed (an attempt), given_up."""

    async def tell(self, event: Event, standing: RolloutStanding, config: RolloutConfig) -> None:
        """Have everybody hear of an event whom `rollout.notify` names for it.

        It returns once that is on the disk, and waits for nobody's answer. Told again, as after a
        crash, an event that is on the disk already changes nothing.

        Args:
            event: what happened.
            standing: the rollout right after it.
            config: its plan.

        Raises:
            OSError: the disk does not take it; nobody hears of it until it is told again.
        """
        names = names_of(event, standing)
        targets = notice_log.targets_of(config.notify, names)
        if not targets:
            return
        notice = Notice(
            id=identifier_of(event, standing),
            at=event.at,
            model=standing.model,
            rollout=standing.id,
            revision=event.revision,
            event=event_of(event, standing, config, names=names, source=self._source()).decode(),
            targets=targets,
        )
        async with self._one_at_a_time:
            await self._load()
            if notice.id in self._told:
                return
            await asyncio.to_thread(notice_log.append, self._path(notice), notice)
            self._told.add(notice.id)
            self.counts[notice.model, "told"] += 1
            for target in targets:
                await self._enqueue(notice, target)
        self._news.set()

    async def keep(self) -> None:
        """Send what waits, for ever; an error costs a turn."""
        said = ""
        try:
            while True:
                problem = ""
                try:
                    await self.look()
                except OSError as error:
                    problem = f"the data directory cannot be used: {error.strerror}"
                except Exception:  # noqa: BLE001 - a notice is not worth the admin port
                    problem = "an error of the gateway's"
                    _LOG.exception("notices of rollouts cannot be sent")
                if problem and problem != said:
                    _LOG.error("nobody is told of rollouts: %s", problem)
                said = problem
                await self._pause()
        finally:
            await end(*(line.sending for line in self._lines.values() if line.sending is not None))

    async def look(self) -> None:
        """Read what an earlier process left, once; start sending what is due. Raises OSError."""
        async with self._one_at_a_time:
            await self._load()
        now = self._clock.wall()
        for target, line in self._lines.items():
            idle = line.sending is None or line.sending.done()
            if idle and line.waiting and line.next_attempt <= now:
                line.sending = asyncio.create_task(self._send(target, line))

    async def sent(self) -> None:
        """Wait until nothing is being sent."""
        for line in self._lines.values():
            if line.sending is not None:
                await line.sending

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    async def _load(self) -> None:
        if self._loaded:
            return
        lines = await asyncio.to_thread(self._read)
        self._told = {line.id for line in lines if isinstance(line, Notice)}
        self._lines.clear()
        waiting = notice_log.unsettled(lines)
        for notice, target in sorted(waiting, key=lambda pair: pair[0].at):
            await self._enqueue(notice, target)
        self._loaded = True

    def _read(self) -> list[Notice | Settled]:
        paths = sorted(self._folder.glob(f"*/*/{_FILE}"))
        return [line for path in paths for line in notice_log.read(path)]

    async def _enqueue(self, notice: Notice, target: Target) -> None:
        line = self._lines.setdefault(target, _Line())
        line.waiting.append(notice)
        if len(line.waiting) > _MOST_WAITING:
            oldest = line.waiting.popleft()
            said = f"{_MOST_WAITING} newer ones wait"
            await self._settle(oldest, target, line, "given_up", said)

    def _path(self, notice: Notice) -> Path:
        return self._folder / notice.model / notice.rollout / _FILE

    # --- one target ---------------------------------------------------------------------------

    async def _send(self, target: Target, line: "_Line") -> None:
        """Send what waits for a target, oldest first, until one is not taken."""
        while line.waiting:
            notice = line.waiting[0]
            delivered, said = await self._attempt(target, notice)
            line.attempts += 1
            now = self._clock.wall()
            if not delivered:
                self.counts[notice.model, "failed"] += 1
                if said != line.said:  # the same failure every five minutes is told once
                    _LOG.error("%s of %s: not taken: %s", notice.id, target.words, said)
                line.said = said
                line.next_attempt = next_attempt(line.attempts, now)
                if now - notice.at < GIVE_UP_SECONDS:
                    return
            if line.waiting and line.waiting[0] is notice:  # not given up for want of room
                outcome = "delivered" if delivered else "given_up"
                try:
                    await self._settle(notice, target, line, outcome, said)
                except OSError as error:
                    # It is told again, with the same id, rather than not at all.
                    _LOG.error("what became of %s is not kept: %s", notice.id, error.strerror)
                    line.next_attempt = next_attempt(line.attempts, now)
                    return
                if line.waiting and line.waiting[0] is notice:
                    line.waiting.popleft()
            line.attempts, line.next_attempt, line.said = 0, 0.0, ""

    async def _attempt(self, target: Target, notice: Notice) -> tuple[bool, str]:
        event = notice.event.encode()
        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                if target.file:
                    await asyncio.to_thread(self._write, target.file, event)
                    return True, "written"
                directory = await asyncio.to_thread(self._directory)
                key = await asyncio.to_thread(read_secret, directory, target.secret_file)
                return True, await post_event(target.webhook, key, event, self._reach())
        except TimeoutError:
            return False, f"no answer within {_ATTEMPT_SECONDS:g} s"
        except DeliveryFailed as error:
            return False, str(error)
        except OSError as error:
            return False, f"the file cannot be written: {error.strerror or error}"
        except Exception:  # noqa: BLE001 - it is tried again
            _LOG.exception("%s cannot be sent to %s", notice.id, target.words)
            return False, "an error of the gateway's; control's log says which"

    def _write(self, name: str, event: bytes) -> None:
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise DeliveryFailed(f"`{name}` is not below the data directory")
        whole = self._data / path
        whole.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        append_line(whole, event)

    async def _settle(
        self, notice: Notice, target: Target, line: "_Line", outcome: str, said: str
    ) -> None:
        settled = Settled(
            id=notice.id,
            target=target,
            at=self._clock.wall(),
            outcome="delivered" if outcome == "delivered" else "given_up",
            attempts=line.attempts,
            said=said,
        )
        await asyncio.to_thread(notice_log.append, self._path(notice), settled)
        self.counts[notice.model, outcome] += 1
        level = logging.INFO if outcome == "delivered" else logging.ERROR
        _LOG.log(level, "%s of %s: %s: %s", notice.id, target.words, outcome, said)


class _Line:
    """What waits for one target, oldest first, and how its first one fares."""

    def __init__(self) -> None:
        self.waiting: deque[Notice] = deque()
        self.attempts = 0
        self.next_attempt = 0.0
        self.said = ""
        self.sending: asyncio.Task[None] | None = None
