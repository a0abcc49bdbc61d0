"""A version that runs elsewhere: in hosts of its own on this machine, or at other servers.

Requests go over HTTP/1.1 with keep-alive, one at a time on a connection, to the less busy of two
hosts. What a host loses (its connection, not the model's verdict) is tried once more on another,
within the deadline and a budget; hosts that keep failing rest for a while.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import msgspec
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
from serving.models.waiting import Inference
from serving.protocol.rest_client import decode_answer, decode_error, encode_question
from serving.types import Signature
from serving.upstream.balance import RetryBudget, pick
from serving.upstream.connection import HttpAnswer
from serving.upstream.crew import Crew
from serving.upstream.host import Host

__all__ = ["Manner", "RemoteUpstream"]

_LEAST_TIMEOUT: Final = 1e-4
_LONGEST_TIMEOUT: Final = 3600.0
_BUSY: Final = frozenset({502, 503})
_LATELY_SECONDS: Final = 2.0
"""How long a request counts as demand for a host; most are answered before anybody looks."""


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How hosts are asked.

    `path` of the inference verb; None: each host's own address has it. `binary`: tensors as raw
    bytes. `own`: they are processes of this gateway, which understand what it adds. `cold_start`:
    seconds that a request waits where there is no host.
    """

    path: str | None
    binary: bool
    own: bool
    max_rows: int
    max_in_flight: int
    cold_start: float = 0.0


class RemoteUpstream:
    """One version behind a `Crew`; see `serving.upstream.Upstream`."""

    def __init__(
        self,
        name: tuple[str, str],
        signature: Signature,
        crew: Crew,
        manner: Manner,
        *,
        metrics: MetricsFile,
        clock: Clock,
    ) -> None:
        model, version = name
        self.signature = signature
        self._name = f"model '{model}' version '{version}'"
        self._crew = crew
        self._manner = manner
        self._now: Callable[[], float] = clock.monotonic
        self._budget = RetryBudget()
        self._outputs = tuple(one.name for one in signature.outputs)
        self._texts = [one.name for one in signature.inputs if one.datatype == "BYTES"]
        self._tasks: set[asyncio.Task[Inference]] = set()
        self.closed = False
        self._asked_at = -_LATELY_SECONDS
        labels = {"model": model, "version": version}
        self._retries = metrics.counter("sluice_upstream_retries_total", **labels)
        self._ejections = metrics.counter("sluice_upstream_ejections_total", **labels)
        self._hosts = metrics.gauge("sluice_upstream_hosts", **labels)
        crew.start()

    def ready(self) -> bool:
        """Whether it is not closed, and there is a host or one may be started for it."""
        return not self.closed and (bool(self._crew.hosts) or self._manner.own)

    @property
    def demand(self) -> float:
        """Requests that want a host now, at least one if there was any in the last 2 s."""
        lately = self._now() - self._asked_at < _LATELY_SECONDS
        return float(max(len(self._tasks), lately))

    async def until_there(self, seconds: float) -> None:
        """Wait until a host takes requests. Raises ModelNotReady after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._crew.someone()
        except TimeoutError:
            raise ModelNotReady(
                f"{self._name}: none of its processes was ready within {seconds:g} s; "
                "`sluice status` and the log say why"
            ) from None

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
        if self.closed:
            raise ModelNotReady(f"{self._name} is being unloaded")
        if self.signature.batchable and not 0 < rows <= self._manner.max_rows:
            raise InvalidRequest(
                f"the request has {rows} rows; {self._name} takes 1 to {self._manner.max_rows} "
                "(serve.max_batch_size)"
            )
        if deadline <= now:
            raise DeadlineExceeded("the deadline had passed before inference")
        for name in self._texts:
            _check_text(name, feed[name])
        self._asked_at = now
        if not self._crew.hosts:
            self._crew.look()
            if not self._crew.hosts and (shadow or self._manner.cold_start <= 0):
                raise Overloaded(
                    f"{self._name} has no process running; one is being started",
                    reason="shadow_dropped" if shadow else "cold_start",
                )
        if len(self._tasks) >= self._manner.max_in_flight:
            raise Overloaded(
                f"{len(self._tasks)} requests are waiting for {self._name} (serve.max_queue_size)",
                reason="shadow_dropped" if shadow else "queue_full",
            )
        wanted = outputs or self._outputs
        pieces, length = encode_question(
            feed,
            self.signature.inputs,
            wanted,
            parameters={"shadow": True} if shadow and self._manner.own else {},
            binary=self._manner.binary,
        )
        trip = _Trip(pieces, length, wanted, rows, deadline, now, shadow)
        task = asyncio.get_running_loop().create_task(self._bring(trip))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _bring(self, trip: "_Trip") -> Inference:
        remaining = trip.deadline - self._now()
        host: Host | None = None
        try:
            async with asyncio.timeout(_within(remaining)):
                self._budget.earn()
                while True:
                    host = await self._someone(host, trip)
                    try:
                        answer = await self._exchange(host, trip)
                    except OSError as error:
                        self._count_failure(host, error)
                        if not self._may_repeat(trip):
                            raise InferenceFailed(
                                f"{self._name}: a process that serves it was lost"
                            ) from error
                        continue
                    if (
                        answer.status in _BUSY
                        and len(self._crew.hosts) > 1
                        and self._may_repeat(trip)
                    ):
                        continue
                    return self._read(answer, trip)
        except TimeoutError:
            if host is not None:
                self._count_failure(host)
            raise DeadlineExceeded("the deadline passed before the model answered") from None

    async def _someone(self, tried: Host | None, trip: "_Trip") -> Host:
        crew = self._crew
        while True:
            host = pick(crew.hosts, self._now(), random.randrange, tried)
            if host is not None:
                return host
            cold = self._manner.cold_start - (self._now() - trip.asked)
            try:
                async with asyncio.timeout(max(cold, 0.0)):
                    await crew.someone()
            except TimeoutError:
                raise Overloaded(
                    f"{self._name} has no process running; one is being started",
                    reason="cold_start",
                ) from None

    async def _exchange(self, host: Host, trip: "_Trip") -> HttpAnswer:
        started = self._now()
        health = host.health
        health.in_flight += 1
        try:
            answer = await host.ask([self._head(host, trip, started), *trip.pieces])
        finally:
            health.in_flight -= 1
        if answer.status in _BUSY and not self._manner.own:
            self._count_failure(host)
        else:
            # A host of ours that is busy says so at once: that is no failure.
            health.answered(self._now() - started)
        return answer

    def _head(self, host: Host, trip: "_Trip", now: float) -> bytes:
        manner, where = self._manner, host.where
        path = manner.path if manner.path is not None else f"{where.path}/infer"  # type: ignore[union-attr]
        authority = "localhost" if manner.own else where.authority  # type: ignore[union-attr]
        size = sum(map(len, trip.pieces))
        length = (
            f"Inference-Header-Content-Length: {trip.length}\r\n"
            "Content-Type: application/octet-stream\r\n"
            if trip.length is not None
            else "Content-Type: application/json\r\n"
        )
        timeout = f"x-request-timeout: {_within(trip.deadline - now):.6f}\r\n" if manner.own else ""
        return (
            f"POST {path} HTTP/1.1\r\nHost: {authority}\r\n{length}{timeout}"
            f"Content-Length: {size}\r\n\r\n"
        ).encode()

    def _count_failure(self, host: Host, error: OSError | None = None) -> None:
        if self._manner.own and isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
            host.close()  # nobody listens on that socket any more, nor ever will again
        elif host.health.failed(self._now()):
            self._ejections.inc()
        self._crew.look()

    def _may_repeat(self, trip: "_Trip") -> bool:
        if trip.repeated or trip.shadow or not self._budget.spend():
            return False
        trip.repeated = True
        self._retries.inc()
        return True

    def _read(self, answer: HttpAnswer, trip: "_Trip") -> Inference:
        if answer.status != 200:
            raise self._refusal(answer)
        text = answer.headers.get(b"inference-header-content-length")
        answered = decode_answer(answer.body, int(text) if text else None, trip.outputs)
        said = answered.parameters
        whole = self._now() - trip.asked
        queue, compute = said.get("queue_seconds"), said.get("compute_seconds")
        rows = said.get("batch_rows")
        if not self._manner.own or not isinstance(queue, float) or not isinstance(compute, float):
            return Inference(answered.outputs, 0.0, whole, trip.rows)
        # What the way there and back takes counts as waiting: it is none of the model's work.
        return Inference(
            answered.outputs,
            max(queue, whole - compute),
            compute,
            rows if isinstance(rows, int) else trip.rows,
        )

    def _refusal(self, answer: HttpAnswer) -> ServingError:
        words = decode_error(answer.body)
        if self._manner.own:
            # The host is this program: its words are ours.
            kinds: dict[int, type[ServingError]] = {
                400: InvalidRequest,
                413: InvalidRequest,
                503: Overloaded,
                504: DeadlineExceeded,
            }
            return kinds.get(answer.status, InferenceFailed)(words or "the model failed")
        if answer.status in {400, 422}:
            return InvalidRequest(f"{self._name} refuses the request: {words or 'it says no more'}")
        if answer.status in {429, 503}:
            return Overloaded(f"the server of {self._name} takes no more requests now")
        if answer.status in {408, 504}:
            return DeadlineExceeded(f"the server of {self._name} ran out of time")
        if answer.status == 404:
            return ModelNotReady(f"the server of {self._name} does not have it now")
        return InferenceFailed(f"the server of {self._name} answered with status {answer.status}")

    def publish(self) -> None:
        """Bring the gauge of hosts up to date."""
        self._hosts.set(0 if self.closed else len(self._crew.hosts))

    async def close(self) -> None:
        """Finish what is in flight, then let go of the hosts."""
        self.closed = True
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await self._crew.close()


class _Trip(msgspec.Struct, gc=False):
    """One request on its way."""

    pieces: list[bytes | memoryview]
    length: int | None
    outputs: tuple[str, ...]
    rows: int
    deadline: float
    asked: float
    shadow: bool
    repeated: bool = False


def _within(seconds: float) -> float:
    return min(max(seconds, _LEAST_TIMEOUT), _LONGEST_TIMEOUT)


def _check_text(name: str, data: NDArray[Any]) -> None:
    for i, element in enumerate(data.flat):
        try:
            if isinstance(element, bytes):
                element.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"input '{name}': element {i} is not valid UTF-8") from error
