"""Takes one question to a host and brings the answer back, trying once more if it must.

What a host loses (its connection, not the model's verdict) is tried once more on another, within
the deadline and a budget; hosts that keep failing rest for a while.
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
from serving.protocol.rest_client import decode_answer, decode_error, encode_question
from serving.types import Signature
from serving.upstream.balance import RetryBudget, pick
from serving.upstream.connection import HttpAnswer
from serving.upstream.endpoints import Endpoints
from serving.upstream.host import Host

__all__ = ["Brought", "Courier", "Manner", "Question"]

_LEAST_TIMEOUT: Final = 1e-4
_LONGEST_TIMEOUT: Final = 3600.0
_BUSY: Final = frozenset({502, 503})
_OUR_WORDS: Final[dict[int, type[ServingError]]] = {
    400: InvalidRequest,
    413: InvalidRequest,
    503: Overloaded,
    504: DeadlineExceeded,
}


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How hosts are asked.

    `path` of the inference verb; None: each host's own address has it. `binary`: tensors as raw
    bytes. `own`: they are processes of this gateway, which understand what it adds. `max_rows` of
    a question, `max_in_flight` requests. `cold_start`: seconds that a question waits where there
    is no host.
    """

    path: str | None
    binary: bool
    own: bool
    max_rows: int
    max_in_flight: int
    cold_start: float = 0.0


class Question(msgspec.Struct, gc=False):
    """What is asked. `deadline` and `asked` in monotonic seconds."""

    feed: dict[str, NDArray[Any]]
    outputs: tuple[str, ...]
    rows: int
    deadline: float
    asked: float
    shadow: bool
    repeated: bool = False


class Brought(msgspec.Struct, frozen=True, gc=False):
    """What a host answered: outputs as asked for, and what it took. Seconds."""

    outputs: list[NDArray[Any]]
    queue: float
    compute: float
    batch_rows: int


class Courier:
    """Asks the hosts of one version.

    Args:
        name: for messages, `model 'm' version 'v'`.
        labels: `model` and `version`, for metrics.
        signature: what it takes and gives.
        endpoints: who can be asked.
        manner: how.
        metrics: where retries and ejections are counted.
        clock: whose monotonic seconds deadlines are in.
    """

    def __init__(
        self,
        name: str,
        labels: dict[str, str],
        signature: Signature,
        endpoints: Endpoints,
        manner: Manner,
        *,
        metrics: MetricsFile,
        clock: Clock,
    ) -> None:
        self._name = name
        self._inputs = signature.inputs
        self._endpoints = endpoints
        self._manner = manner
        self._now: Callable[[], float] = clock.monotonic
        self._budget = RetryBudget()
        self._retries = metrics.counter("sluice_upstream_retries_total", **labels)
        self._ejections = metrics.counter("sluice_upstream_ejections_total", **labels)

    async def bring(self, question: Question) -> Brought:
        """Ask. Cancel to give up.

        Raises:
            ServingError: as `Upstream.infer` lists them.
        """
        pieces, length = encode_question(
            question.feed,
            self._inputs,
            question.outputs,
            parameters={"shadow": True} if question.shadow and self._manner.own else {},
            binary=self._manner.binary,
        )
        host: Host | None = None
        try:
            async with asyncio.timeout(_within(question.deadline - self._now())):
                self._budget.earn()
                while True:
                    host = await self._someone(host, question)
                    try:
                        answer = await self._exchange(host, question, pieces, length)
                    except OSError as error:
                        self._count_failure(host, error)
                        if not self._may_repeat(question):
                            raise InferenceFailed(
                                f"{self._name}: a process that serves it was lost"
                            ) from error
                        continue
                    if (
                        answer.status in _BUSY
                        and len(self._endpoints.hosts) > 1
                        and self._may_repeat(question)
                    ):
                        continue
                    return self._read(answer, question)
        except TimeoutError:
            if host is not None:
                self._count_failure(host)
            raise DeadlineExceeded("the deadline passed before the model answered") from None

    def none_there(self, *, shadow: bool = False) -> Overloaded:
        """What a request is told where there is no host."""
        return Overloaded(
            f"{self._name} has no process running; one is being started",
            reason="shadow_dropped" if shadow else "cold_start",
        )

    async def _someone(self, tried: Host | None, question: Question) -> Host:
        endpoints = self._endpoints
        while True:
            host = pick(endpoints.hosts, self._now(), random.randrange, tried)
            if host is not None:
                return host
            cold = self._manner.cold_start - (self._now() - question.asked)
            try:
                async with asyncio.timeout(max(cold, 0.0)):
                    await endpoints.someone()
            except TimeoutError:
                raise self.none_there() from None

    async def _exchange(
        self, host: Host, question: Question, pieces: list[bytes | memoryview], length: int | None
    ) -> HttpAnswer:
        started = self._now()
        health = host.health
        health.in_flight += 1
        try:
            head = self._head(host, sum(map(len, pieces)), length, question.deadline - started)
            answer = await host.ask([head, *pieces])
        finally:
            health.in_flight -= 1
        if answer.status in _BUSY and not self._manner.own:
            self._count_failure(host)
        else:
            # A host of ours that is busy says so at once: that is no failure.
            health.answered(self._now() - started)
        return answer

    def _head(self, host: Host, size: int, length: int | None, seconds: float) -> bytes:
        manner, where = self._manner, host.where
        if manner.own:
            return (
                f"POST {manner.path} HTTP/1.1\r\nHost: localhost\r\n"
                f"Inference-Header-Content-Length: {length}\r\n"
                f"x-request-timeout: {_within(seconds):.6f}\r\nContent-Length: {size}\r\n\r\n"
            ).encode()
        kind = "application/json" if length is None else "application/octet-stream"
        extra = "" if length is None else f"Inference-Header-Content-Length: {length}\r\n"
        return (
            f"POST {where.path}/infer HTTP/1.1\r\nHost: {where.authority}\r\n"  # type: ignore[union-attr]
            f"Content-Type: {kind}\r\n{extra}Content-Length: {size}\r\n\r\n"
        ).encode()

    def _count_failure(self, host: Host, error: OSError | None = None) -> None:
        if self._manner.own and isinstance(error, (ConnectionRefusedError, FileNotFoundError)):
            host.close()  # nobody listens on that socket any more, nor ever will again
        elif host.health.failed(self._now()):
            self._ejections.inc()
        self._endpoints.look()

    def _may_repeat(self, question: Question) -> bool:
        if question.repeated or question.shadow or not self._budget.spend():
            return False
        question.repeated = True
        self._retries.inc()
        return True

    def _read(self, answer: HttpAnswer, question: Question) -> Brought:
        if answer.status != 200:
            raise self._refusal(answer)
        text = answer.headers.get(b"inference-header-content-length")
        answered = decode_answer(answer.body, int(text) if text else None, question.outputs)
        said = answered.parameters
        whole = self._now() - question.asked
        queue, compute = said.get("queue_seconds"), said.get("compute_seconds")
        rows = said.get("batch_rows")
        if not self._manner.own or not isinstance(queue, float) or not isinstance(compute, float):
            return Brought(answered.outputs, 0.0, whole, question.rows)
        # What the way there and back takes counts as waiting: it is none of the model's work.
        return Brought(
            answered.outputs,
            max(queue, whole - compute),
            compute,
            rows if isinstance(rows, int) else question.rows,
        )

    def _refusal(self, answer: HttpAnswer) -> ServingError:
        words = decode_error(answer.body)
        if self._manner.own:
            # The host is this program: its words are ours.
            return _OUR_WORDS.get(answer.status, InferenceFailed)(words or "the model failed")
        if answer.status in {400, 422}:
            return InvalidRequest(f"{self._name} refuses the request: {words or 'it says no more'}")
        if answer.status in {429, 503}:
            return Overloaded(f"the server of {self._name} takes no more requests now")
        if answer.status in {408, 504}:
            return DeadlineExceeded(f"the server of {self._name} ran out of time")
        if answer.status == 404:
            return ModelNotReady(f"the server of {self._name} does not have it now")
        return InferenceFailed(f"the server of {self._name} answered with status {answer.status}")


def _within(seconds: float) -> float:
    return min(max(seconds, _LEAST_TIMEOUT), _LONGEST_TIMEOUT)
