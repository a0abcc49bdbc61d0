"""A version that is a Python function: for tests, dry runs and policies without a model."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from serving.clock import Clock
from serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    ModelNotReady,
    ServingError,
)
from serving.models.waiting import Inference
from serving.types import Signature
from serving.upstream.terms import Terms

__all__ = ["MemoryUpstream"]

Feed = dict[str, NDArray[Any]]


class MemoryUpstream:
    """The twin of `InlineUpstream`: the same promises, kept by calling a function per request.

    It is ready from the start, queues nothing beyond one turn of the loop, and so is never
    overloaded.

    Args:
        function: Takes the inputs by name and returns the outputs by name. What it raises
            becomes InferenceFailed, unless it is a ServingError.
        signature: What it takes and gives.
        clock: Whose monotonic seconds deadlines are in.
        max_batch_size: Most rows in one request, where the signature is batchable.
    """

    def __init__(
        self,
        function: Callable[[Feed], Feed],
        signature: Signature,
        clock: Clock,
        *,
        max_batch_size: int = 64,
    ) -> None:
        self.signature = signature
        self._function = function
        self._clock = clock
        self._terms = Terms(signature, "the model", max_batch_size)
        self._names = tuple(one.name for one in signature.outputs)
        self._in_flight = 0
        self._closed = False
        self._idle = asyncio.Event()

    def ready(self) -> bool:
        """Whether it is not closed."""
        return not self._closed

    def there(self) -> bool:
        """The same."""
        return not self._closed

    def infer(
        self,
        feed: Feed,
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
        shadow: bool = False,  # noqa: ARG002 - idle capacity is all there is
    ) -> "asyncio.Future[Inference]":
        """Answer one request in the next turn of the loop; see `Upstream.infer`."""
        now = self._clock.monotonic()
        if self._closed:
            raise ModelNotReady("the model has been unloaded")
        self._terms.insist(feed, rows, deadline - now)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Inference] = loop.create_future()
        self._in_flight += 1
        loop.call_soon(
            partial(
                self._answer,
                waiter,
                feed,
                names=outputs or self._names,
                rows=rows,
                deadline=deadline,
                queued_at=now,
            )
        )
        return waiter

    def _answer(
        self,
        waiter: "asyncio.Future[Inference]",
        feed: Feed,
        *,
        names: tuple[str, ...],
        rows: int,
        deadline: float,
        queued_at: float,
    ) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()
        if waiter.done():  # its caller hung up
            return
        started = self._clock.monotonic()
        if deadline <= started:
            waiter.set_exception(DeadlineExceeded("the deadline passed before the model answered"))
            return
        try:
            results = self._function(feed)
            answer = [results[name] for name in names]
        except ServingError as error:
            waiter.set_exception(error)
        except Exception:  # noqa: BLE001 - whatever it is, somebody is waiting for an answer
            waiter.set_exception(InferenceFailed("the model failed on this input"))
        else:
            seconds = self._clock.monotonic() - started
            waiter.set_result(Inference(answer, started - queued_at, seconds, rows))

    async def close(self) -> None:
        """Finish what is in flight."""
        self._closed = True
        if self._in_flight:
            self._idle.clear()
            await self._idle.wait()
