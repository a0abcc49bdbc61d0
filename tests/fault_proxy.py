"""A proxy between a client and a server that delays, cuts, half-opens, corrupts and dribbles.

It runs in the test's own event loop, on a Unix socket beside the server's.
"""

import asyncio
import contextlib
from pathlib import Path


class FaultProxy:
    """Passes bytes both ways; its attributes say how badly.

    Attributes:
        delay: seconds each piece of an answer is held back.
        piece: bytes of an answer passed on at a time, 0 for all there is.
        silent: swallow what the server says (a half-open connection).
        flip: corrupt the next answer: its first byte becomes `!`.
    """

    def __init__(self, listen: Path, server: Path) -> None:
        self.listen = listen
        self.server = server
        self.url = f"unix://{listen}"
        self.delay = 0.0
        self.piece = 0
        self.silent = False
        self.flip = False
        self.connections = 0
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> "FaultProxy":
        """Begin to listen."""
        self._listener = await asyncio.start_unix_server(self._accepted, self.listen)
        return self

    async def stop(self) -> None:
        """Cut everything and end."""
        if self._listener is not None:
            self._listener.close()
            await self.cut()
            await self._listener.wait_closed()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cut(self) -> None:
        """Break every connection, in the middle of whatever it was doing."""
        for writer in tuple(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            upstream, outgoing = await asyncio.open_unix_connection(self.server)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, outgoing}
        for source, sink, answers in ((reader, outgoing, False), (upstream, writer, True)):
            task = asyncio.get_running_loop().create_task(self._pass(source, sink, answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if answers:
                    if self.delay:
                        await asyncio.sleep(self.delay)
                    if self.silent:
                        continue
                    if self.flip:
                        self.flip, data = False, b"!" + data[1:]
                step = self.piece if answers and self.piece else len(data)
                for at in range(0, len(data), step):
                    sink.write(data[at : at + step])
                    await sink.drain()
                    if step < len(data):
                        await asyncio.sleep(0)
        sink.transport.abort()
        self._writers.discard(sink)
