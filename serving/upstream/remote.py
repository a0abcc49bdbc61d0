"""A version that runs elsewhere: in hosts of its own on this machine, or at other servers.

Requests that arrive in one turn of the loop share a question, as they share a run in `Batcher`:
what the way to the host costs is then paid once. If the model refuses such a question, each
request is asked alone, so that only the guilty one fails. A model that takes longer than the
way is not asked like that: its requests are better spread over the hosts.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from serving.clock import Clock
from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidRequest,
    ModelNotReady,
    Overloaded,
    ServingError,
)
from serving.metrics import MetricsFile
from serving.models.batch import cut, join, key, union
from serving.models.waiting import Inference
from serving.types import Signature
from serving.upstream.courier import Brought, Courier, Manner, Question
from serving.upstream.endpoints import Endpoints
from serving.upstream.terms import Terms

__all__ = ["Manner", "RemoteUpstream"]

_LATELY_SECONDS: Final = 2.0
"""How long a request counts as demand for a host; most are answered before anybody looks."""

_QUICK_SECONDS: Final = 2e-3
"""Up to here the way to a host weighs more than its work."""


class _Waiting:
    """A request and who waits for it."""

    __slots__ = ("question", "waiter")

    def __init__(self, question: Question, waiter: "asyncio.Future[Inference]") -> None:
        self.question = question
        self.waiter = waiter


class RemoteUpstream:
    """One version behind its `Endpoints`; see `serving.upstream.Upstream`."""

    def __init__(
        self,
        name: tuple[str, str],
        signature: Signature,
        endpoints: Endpoints,
        manner: Manner,
        *,
        metrics: MetricsFile,
        clock: Clock,
    ) -> None:
        model, version = name
        labels = {"model": model, "version": version}
        self.signature = signature
        self.closed = False
        self._name = f"model '{model}' version '{version}'"
        self._endpoints = endpoints
        self._terms = Terms(signature, self._name, manner.max_rows)
        self._manner = manner
        self._now: Callable[[], float] = clock.monotonic
        self._loop = asyncio.get_running_loop()
        self._courier = Courier(
            self._name, labels, signature, endpoints, manner, metrics=metrics, clock=clock
        )
        self._outputs = tuple(one.name for one in signature.outputs)
        self._inputs = tuple(one.name for one in signature.inputs)
        self._pending: list[_Waiting] = []
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_at = -_LATELY_SECONDS
        self._hosts = metrics.gauge("sluice_upstream_hosts", **labels)
        endpoints.start()

    def ready(self) -> bool:
        """Whether it is not closed, and there is a host or one may be started for it."""
        return not self.closed and (bool(self._endpoints.hosts) or self._manner.own)

    def there(self) -> bool:
        """Whether there is a host."""
        return not self.closed and bool(self._endpoints.hosts)

    @property
    def demand(self) -> float:
        """Requests that want a host now, at least one if there was any in the last 2 s."""
        lately = self._now() - self._asked_at < _LATELY_SECONDS
        return float(max(self._in_flight, lately))

    async def until_there(self, seconds: float) -> None:
        """Wait until a host takes requests. Raises ModelNotReady after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._endpoints.someone()
        except TimeoutError:
            raise ModelNotReady(
                f"{self._name}: none of its processes was ready within {seconds:g} s; "
                "`sluice status` and the log say why"
            ) from None

    # --- arrival ------------------------------------------------------------------------

    def infer(
        self,
        feed: dict[str, NDArray[Any]],
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
        shadow: bool = False,
    ) -> "asyncio.Future[Inference]":
        """Ask a host; see `Upstream.infer`."""
        now = self._now()
        self._asked_at = now
        self._insist(feed, rows, deadline, now, shadow=shadow)
        waiter: asyncio.Future[Inference] = self._loop.create_future()
        question = Question(feed, outputs or self._outputs, rows, deadline, now, shadow)
        if not self._pending:
            self._loop.call_soon(self._send)
        self._pending.append(_Waiting(question, waiter))
        self._in_flight += 1
        waiter.add_done_callback(self._left)
        return waiter

    def _insist(
        self,
        feed: dict[str, NDArray[Any]],
        rows: int,
        deadline: float,
        now: float,
        *,
        shadow: bool,
    ) -> None:
        """Refuse at once what cannot be answered."""
        if self.closed:
            raise ModelNotReady(f"{self._name} is being unloaded")
        self._terms.insist(feed, rows, deadline - now)
        if not self._endpoints.hosts:
            self._endpoints.look()
            if not self._endpoints.hosts and (shadow or self._manner.cold_start <= 0):
                raise self._courier.none_there(shadow=shadow)
        if self._in_flight >= self._manner.max_in_flight:
            raise Overloaded(
                f"{self._in_flight} requests are waiting for {self._name} (serve.max_queue_size)",
                reason="shadow_dropped" if shadow else "queue_full",
            )

    def _left(self, waiter: "asyncio.Future[Inference]") -> None:
        del waiter
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    # --- on its way ---------------------------------------------------------------------

    def _send(self) -> None:
        """Ask what has arrived in this turn of the loop."""
        pending, self._pending = self._pending, []
        for group in self._grouped(pending) if len(pending) > 1 else [pending]:
            self._begin(group)

    def _begin(self, group: list[_Waiting]) -> None:
        alone = len(group) == 1
        task = self._loop.create_task(self._ask_alone(group[0]) if alone else self._ask(group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _grouped(self, pending: list[_Waiting]) -> list[list[_Waiting]]:
        hosts = self._endpoints.hosts
        quick = all(host.health.seconds < _QUICK_SECONDS for host in hosts)
        if not (self.signature.batchable and self._manner.own and (quick or len(hosts) == 1)):
            return [[one] for one in pending]
        groups: list[list[_Waiting]] = []
        open_: dict[object, tuple[list[_Waiting], int]] = {}
        for one in pending:
            asked = one.question
            alike = key(asked.feed, self._inputs, asked.rows)
            group, rows = open_.get((alike, asked.shadow), (None, 0))
            if alike is None or group is None or rows + asked.rows > self._manner.max_rows:
                group, rows = [], 0
                groups.append(group)
            group.append(one)
            if alike is not None:
                open_[alike, asked.shadow] = (group, rows + asked.rows)
        return groups

    async def _ask_alone(self, one: _Waiting) -> None:
        task = asyncio.current_task()
        assert task is not None

        def gone(waiter: "asyncio.Future[Inference]") -> None:
            if waiter.cancelled():
                task.cancel()

        one.waiter.add_done_callback(gone)
        try:
            brought = await self._courier.bring(one.question)
        except asyncio.CancelledError:
            _refuse([one], ModelNotReady(f"{self._name} has been unloaded"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody is waiting
            _refuse([one], error)
        else:
            _answer([one], brought)

    async def _ask(self, group: list[_Waiting]) -> None:
        """Ask for several at once."""
        asking = self._loop.create_task(self._courier.bring(_together(group)))
        left = len(group)

        def gone(waiter: "asyncio.Future[Inference]") -> None:
            nonlocal left
            left -= 1
            if not left and waiter.cancelled():
                asking.cancel()

        for one in group:
            one.waiter.add_done_callback(gone)
        try:
            await asyncio.wait({asking}, timeout=self._until_first_deadline(group))
            if not asking.done():
                self._expire(group)
                await asyncio.wait({asking})
            if not asking.cancelled():
                self._settle(group, asking)
        except asyncio.CancelledError:
            _refuse(group, ModelNotReady(f"{self._name} has been unloaded"))
            raise
        finally:
            asking.cancel()

    def _settle(self, group: list[_Waiting], asking: "asyncio.Task[Brought]") -> None:
        error = asking.exception()
        if error is None:
            _answer(group, asking.result())
        elif isinstance(error, (InferenceFailed, InvalidRequest)):  # whose fault, shows alone
            for one in group:
                if not one.waiter.done():
                    self._begin([one])
        else:
            _refuse(group, error)

    def _until_first_deadline(self, group: list[_Waiting]) -> float | None:
        """Seconds until somebody's time is up, None if everybody's ends with the question's."""
        deadlines = [one.question.deadline for one in group]
        first = min(deadlines)
        return None if first == max(deadlines) else max(first - self._now(), 0.0)

    def _expire(self, group: list[_Waiting]) -> None:
        """End those whose time is up; the others have until theirs is, with the question."""
        now = self._now()
        for one in group:
            if one.question.deadline <= now and not one.waiter.done():
                one.waiter.set_exception(
                    DeadlineExceeded("the deadline passed before the model answered")
                )

    def publish(self) -> None:
        """Bring the gauge of hosts up to date."""
        self._hosts.set(0 if self.closed else len(self._endpoints.hosts))

    async def close(self) -> None:
        """Finish what is in flight, then let go of the hosts."""
        self.closed = True
        try:
            while self._in_flight:
                self._idle.clear()
                await self._idle.wait()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await self._endpoints.close()


def _together(group: Sequence[_Waiting]) -> Question:
    """One question for all of a group."""
    if len(group) == 1:
        return group[0].question
    asked = [one.question for one in group]
    return Question(
        feed=join([one.feed for one in asked]),
        outputs=union([one.outputs for one in asked]),
        rows=sum(one.rows for one in asked),
        deadline=max(one.deadline for one in asked),
        asked=min(one.asked for one in asked),
        shadow=asked[0].shadow,
    )


def _answer(group: Sequence[_Waiting], brought: Brought) -> None:
    if len(group) == 1:
        parts = [brought.outputs]
    else:
        try:
            parts = cut(brought.outputs, [one.question.rows for one in group])
        except InferenceFailed as error:
            _refuse(group, error)
            return
    names = union([one.question.outputs for one in group])
    for one, part in zip(group, parts, strict=True):
        if one.waiter.done():
            continue
        outputs, wish = part, one.question.outputs
        if wish != names:
            outputs = [part[names.index(name)] for name in wish]
        one.waiter.set_result(
            Inference(outputs, brought.queue, brought.compute, brought.batch_rows)
        )


def _refuse(group: Sequence[_Waiting], error: BaseException) -> None:
    for one in group:
        if not one.waiter.done():
            # A fresh one each: the same exception raised in several tasks mixes up tracebacks.
            if isinstance(error, Overloaded):
                fresh: BaseException = Overloaded(
                    error.message, error.retry_after_seconds, error.reason
                )
            elif isinstance(error, ServingError):
                fresh = type(error)(error.message)
            else:
                fresh = error
            one.waiter.set_exception(fresh)
