"""One run from its beginning to its result: plan, processes, start, sums."""

import asyncio
import contextlib
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from serving.errors import SluiceError
from serving.loadtest.bodies import KindSpec
from serving.loadtest.plan import Plan, make_plan
from serving.loadtest.reading import expected
from serving.loadtest.results import GeneratorCheck, Result
from serving.loadtest.scenario import RequestKind, Scenario
from serving.loadtest.summary import collect, summarise
from serving.loadtest.target import TargetUnreachable, Tls, parse_target
from serving.loadtest.wire import (
    LENGTH,
    Column,
    Message,
    Orders,
    Progress,
    Ready,
    Refused,
    Report,
    decode,
    frame,
    pack,
    unpack,
)

__all__ = ["GeneratorFailed", "Shown", "run"]

_READY_SECONDS: Final = 60.0
_HEAD_START_SECONDS: Final = 0.2
"""From the order to start until the first request may be due; a frame takes a millisecond."""

_SPARE_SECONDS: Final = 30.0


class GeneratorFailed(SluiceError):
    """A generator process ended without a report."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is, for people. Counts since the start; `latencies` of the last moment."""

    at: float
    """Seconds from the start."""

    length: float
    phase: str
    scheduled: int
    """Requests due by now."""

    sent: int
    ended: int
    ok: int
    unsent: int
    latencies: list[float]


async def run(
    scenario: Scenario,
    folder: Path,
    *,
    token: str = "",
    tls: Tls | None = None,
    told: Callable[[Shown], None] = lambda _shown: None,
) -> Result:
    """Run a scenario; being cancelled ends it early with what there is.

    Args:
        scenario: what to do.
        folder: where its paths start.
        token: a credential for every request.
        tls: how to speak to a target that is https or grpcs.
        told: is called now and then.

    Raises:
        TargetUnreachable: nobody listens; nothing was sent.
        GeneratorFailed: a generator could not do its work.
        InvalidRequest, TooLarge, CannotReplay, QueryFailed, InvalidTrace: nothing to send.
    """
    plan = make_plan(scenario, folder)
    processes = min(scenario.processes, max(scenario.connections, 1))
    orders = [
        _orders(scenario, folder, plan, (number, processes), token=token, tls=tls)
        for number in range(processes)
    ]
    started = time.time()
    reports = await _Run(scenario, plan, told).through(orders)
    ended = collect(plan, reports)
    deadline = None if scenario.deadline is None else float(scenario.deadline)
    summary = summarise(
        plan,
        ended,
        [_name(kind) for kind in scenario.requests],
        warmup=float(scenario.warmup),
        deadline=deadline,
        timeout=float(scenario.timeout),
        generator=GeneratorCheck(
            processes=processes,
            max_lag=float(scenario.max_lag),
            cpu_share=max(report.cpu_share for report in reports),
            most_in_flight=sum(report.most_in_flight for report in reports),
        ),
    )
    target = parse_target(scenario.target)
    return Result(
        scenario=scenario.name,
        target=str(target),
        protocol="grpc" if target.grpc else f"http {scenario.encoding}",
        started=started,
        seconds=plan.phases[-1].end,
        seed=scenario.seed,
        connections=scenario.connections,
        deadline=deadline,
        phases=summary.phases,
        whole=summary.whole,
        whole_seconds=summary.whole_seconds,
        per_second=summary.per_second,
        kinds=summary.kinds,
        generator=summary.generator,
        interrupted=any(report.interrupted for report in reports),
        labels={name: str(value) for name, value in scenario.labels.items()},
        versions={"sluice": version("sluice-gateway"), "python": platform.python_version()},
    )


def _name(kind: RequestKind) -> str:
    return kind.name or (f"{kind.model}:{kind.version}" if kind.version else kind.model)


def _orders(
    scenario: Scenario,
    folder: Path,
    plan: Plan,
    part: tuple[int, int],
    *,
    token: str,
    tls: Tls | None,
) -> Orders:
    """What one of several processes is told: every so-manieth request, its part of connections."""
    number, processes = part
    mine = slice(number, None, processes)
    more = number < scenario.connections % processes
    target = parse_target(scenario.target)
    return Orders(
        target=target,
        encoding=scenario.encoding,
        tls=(tls or Tls()) if target.secure else None,
        token=token,
        headers=scenario.headers,
        connections=scenario.connections // processes + more,
        deadline=None if scenario.deadline is None else float(scenario.deadline),
        timeout=float(scenario.timeout),
        kinds=[
            KindSpec(
                name=_name(kind),
                model=kind.model,
                version=kind.version,
                headers=kind.headers,
                body=(folder / kind.body).read_bytes() if kind.body else b"",
                expected=expected(kind),
            )
            for kind in scenario.requests
        ],
        columns=[
            [
                Column(
                    name=one.name, datatype=one.datatype, values=pack(one.values), table=one.table
                )
                for one in columns
            ]
            for columns in plan.columns
        ],
        times=pack(plan.times[mine]),
        kind=pack(plan.kind[mine]),
        rows=pack(plan.rows[mine]),
        offset=pack(plan.offset[mine]),
    )


class _Run:
    """The processes of one run and what they have told last."""

    def __init__(self, scenario: Scenario, plan: Plan, told: Callable[[Shown], None]) -> None:
        self._scenario = scenario
        self._plan = plan
        self._told = told
        self._last: dict[int, Progress] = {}
        self._latencies: list[float] = []
        self._start = 0.0

    async def through(self, orders: list[Orders]) -> list[Report]:
        """Start a process for each of `orders`, run them together, and take their reports."""
        children: list[asyncio.subprocess.Process] = []
        try:
            for one in orders:
                children.append(await _started())
                await _write(children[-1], frame(one))
            async with asyncio.timeout(_READY_SECONDS):
                for child in children:
                    await self._ready(child)
            self._start = time.monotonic() + _HEAD_START_SECONDS
            for child in children:
                await _write(child, frame(self._start))
            return await self._reports(children)
        except TimeoutError as error:
            raise GeneratorFailed("the generator was not ready in time") from error
        finally:
            for child in children:
                await _end(child)

    async def _ready(self, child: asyncio.subprocess.Process) -> None:
        message = await _message(child)
        if isinstance(message, Refused):
            raise (TargetUnreachable if message.unreachable else GeneratorFailed)(message.words)
        if not isinstance(message, Ready):
            raise GeneratorFailed("a generator process could not begin")

    async def _reports(self, children: list[asyncio.subprocess.Process]) -> list[Report]:
        tasks = [
            asyncio.create_task(self._listen(number, child))
            for number, child in enumerate(children)
        ]
        try:
            return list(await asyncio.gather(*(asyncio.shield(task) for task in tasks)))
        except asyncio.CancelledError:
            # Ctrl-C: nothing more is sent, what has left is waited for.
            for child in children:
                if child.stdin is not None:
                    child.stdin.close()
            async with asyncio.timeout(float(self._scenario.timeout) + _SPARE_SECONDS):
                return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, number: int, child: asyncio.subprocess.Process) -> Report:
        while True:
            message = await _message(child)
            if isinstance(message, Report):
                return message
            if not isinstance(message, Progress):
                raise GeneratorFailed(
                    f"generator process {number + 1} ended before its report; "
                    "what it said is on standard error"
                )
            self._last[number] = message
            self._latencies += unpack(message.latencies).tolist()
            if number == min(self._last):
                self._show()

    def _show(self) -> None:
        at = time.monotonic() - self._start
        phases = self._plan.phases
        phase = next((one for one in phases if one.start <= at < one.end), None)
        last = self._last.values()
        self._told(
            Shown(
                at=at,
                length=phases[-1].end,
                phase=phase.name if phase is not None else "waiting for the last answers",
                scheduled=int(np.searchsorted(self._plan.times, at)),
                sent=sum(one.sent for one in last),
                ended=sum(one.ended for one in last),
                ok=sum(one.ok for one in last),
                unsent=sum(one.unsent for one in last),
                latencies=self._latencies,
            )
        )
        self._latencies = []


async def _started() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "serving.loadtest.process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches us, and we end it
    )


async def _write(child: asyncio.subprocess.Process, data: bytes) -> None:
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end says why
        child.stdin.write(data)
        await child.stdin.drain()


async def _message(child: asyncio.subprocess.Process) -> Any:
    """The next message; None at the end."""
    assert child.stdout is not None
    try:
        head = await child.stdout.readexactly(LENGTH.size)
        body = await child.stdout.readexactly(LENGTH.unpack(head)[0])
    except asyncio.IncompleteReadError:
        return None
    return decode(body, Message)  # type: ignore[arg-type]


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.stdin is not None:
        child.stdin.close()
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        async with asyncio.timeout(5.0):
            await child.wait()
            return
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()
