"""ModelStreamInfer: many requests and answers over one call.

Every request gets exactly one answer, marked `triton_final_response`, in the order of the
requests (clients that send no ids rely on it); the requests themselves run concurrently. A
request that fails is answered with `error_message` and its id, and the stream lives on. Once
the client has sent its last request, what is in flight is finished before the stream ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from serving.errors import ModelNotReady
from serving.worker.grpc.call import Context

__all__ = ["STREAM_IN_FLIGHT", "InferenceStreams"]

STREAM_IN_FLIGHT: Final = 64
"""Requests of one stream being answered at once; the next is read when one is done, so the
client feels HTTP/2 flow control instead of a refusal."""

Answer = Callable[[bytes, Context], Coroutine[Any, Any, bytes]]
Answers = asyncio.Queue[asyncio.Task[bytes] | None]


class InferenceStreams:
    """Serves streams with `answer`, which turns one request's bytes into its response's.

    `answer` never raises for a request that failed; it encodes the failure.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False

    def begin_drain(self) -> None:
        """Read no further request on any stream; each ends once its last answer is out."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()

    async def serve(self, messages: AsyncIterator[bytes], context: Context) -> None:
        """Answer one stream until the client has sent its last request.

        Raises ModelNotReady once a drain has begun and what was in flight is answered.
        """
        # The queue holds tasks in the order of their requests; None ends it.
        answers: Answers = asyncio.Queue()
        slots = asyncio.Semaphore(STREAM_IN_FLIGHT)
        reader = asyncio.create_task(self._read(messages, context, answers, slots))
        self._readers.add(reader)
        if self._draining:
            reader.cancel()
        reader.add_done_callback(lambda _: answers.put_nowait(None))
        current: asyncio.Task[bytes] | None = None
        try:
            while (current := await answers.get()) is not None:
                await context.write(await current)
                slots.release()
        finally:
            self._readers.discard(reader)
            await _give_up(reader, current, answers)
        failure = None if reader.cancelled() else reader.exception()
        if isinstance(failure, Exception):
            raise failure
        if self._draining:
            raise ModelNotReady("the server is shutting down; open a new stream")

    async def _read(
        self,
        messages: AsyncIterator[bytes],
        context: Context,
        answers: Answers,
        slots: asyncio.Semaphore,
    ) -> None:
        await slots.acquire()
        async for message in messages:
            answers.put_nowait(asyncio.create_task(self._answer(message, context)))
            await slots.acquire()


async def _give_up(
    reader: "asyncio.Task[None]",
    current: "asyncio.Task[bytes] | None",
    answers: Answers,
) -> None:
    """Cancel what a stream that ended early has left behind, and wait until it is gone."""
    left: list[asyncio.Task[bytes] | asyncio.Task[None]] = [reader]
    if current is not None:
        left.append(current)
    while not answers.empty():
        task = answers.get_nowait()
        if task is not None:
            left.append(task)
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)
