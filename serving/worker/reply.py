"""How whoever asks a plane is answered without a task of its own.

A coroutine costs a task, a future and two turns of the event loop; a listener that only wants to
write the answer is called instead.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from serving.types import Call, InferRequest, InferResponse

__all__ = ["InTask", "InTasks", "Pending", "Reply"]


class Reply(Protocol):
    """Who has asked. Told one of these once, from the event loop, unless it gives up; never raises.

    It may ask the next thing while it is being told.
    """

    def answered(self, request: InferRequest, call: Call, response: InferResponse) -> None:
        """Take the answer."""
        ...

    def failed(self, error: Exception) -> None:
        """There is none, and this is why."""
        ...


class Pending(Protocol):
    """A request that has begun."""

    def cancel(self) -> "asyncio.Task[None] | None":
        """Give up: nobody is told any more. Returns what still has to end, if anything has."""
        ...


class Infers(Protocol):
    """Whoever answers from a coroutine."""

    def infer(self, request: InferRequest, call: Call) -> Awaitable[InferResponse]:
        """Answer one request. Cancel the awaiting task to give up."""
        ...


class InTask:
    """A request that is answered from a coroutine, in a task."""

    __slots__ = ("_given_up", "_task")

    def __init__(self, plane: Infers, request: InferRequest, call: Call, reply: Reply) -> None:
        self._given_up = False
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(plane, request, call, reply))

    async def _run(self, plane: Infers, request: InferRequest, call: Call, reply: Reply) -> None:
        error: Exception
        try:
            response = await plane.infer(request, call)
        except asyncio.CancelledError as cancelled:
            # Not ours: something that the plane waited for was cancelled under it.
            error = RuntimeError("an inference was cancelled from inside")
            error.__cause__ = cancelled
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is answered
            error = failure
        else:
            if not self._given_up:
                reply.answered(request, call, response)
            return
        if not self._given_up:
            reply.failed(error)
        # Its traceback holds this frame: a thousand refusals a second would be left to the garbage
        # collector, which then holds everybody up for tens of milliseconds.
        del error

    def cancel(self) -> "asyncio.Task[None] | None":
        """Give up; the task ends soon."""
        self._given_up = True
        self._task.cancel()
        return self._task


class InTasks:
    """For planes that answer everything from coroutines."""

    def begin(self: Infers, request: InferRequest, call: Call, reply: Reply) -> Pending:
        """Answer one request to `reply`, later."""
        return InTask(self, request, call, reply)
