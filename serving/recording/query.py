"""Asking the log in SQL: the query runs in a process of its own, with bounds.

Nothing that is asked can harm a gateway beside it but by using its processor, at a lower priority;
nor can it change anything, or read what is not of the log.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import pyarrow as pa

from serving.errors import SluiceError
from serving.recording.query_wire import Message, Request
from serving.recording.reading import FileDamage

__all__ = ["Query", "QueryFailed"]

_CHILD: Final = "serving.recording.query_child"


class QueryFailed(SluiceError):
    """There is no answer, or not the whole. `hint` says what to try next."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Query:
    """One question and its answer; a context manager that ends the process.

    Args:
        log: the log's folder.
        sql: one statement that reads.
        memory: most bytes for the answer's making.
        timeout: seconds until the whole answer has to be read.
        since, until: of the time of rows, seconds since 1970.
        told: is called in another thread with what goes on and how many percent are done.
    """

    def __init__(
        self,
        log: Path,
        sql: str,
        *,
        memory: int,
        timeout: float,
        since: float | None = None,
        until: float | None = None,
        told: Callable[[str, float | None], None] | None = None,
    ) -> None:
        self.damages: list[FileDamage] = []
        """Parts of the log that could not be read; complete when the answer is."""

        self._told = told
        self._failure: Message | None = None
        self._late = False
        self._words = ""
        self._timeout = timeout
        self._process = subprocess.Popen(
            [sys.executable, "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Arrow's own allocator reserves a gigabyte at once, which counts against `memory`.
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
            start_new_session=True,  # Ctrl-C reaches us, and we end it
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._alarm = threading.Timer(timeout, self._ring)
        self._alarm.daemon = True
        self._alarm.start()
        request = Request(
            sql=sql, log=str(log), memory=memory, parent=os.getpid(), since=since, until=until
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(request))
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it says why on its way out

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._alarm.cancel()
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The answer, in parts; the first is there even if it has no rows.

        Raises:
            QueryFailed: the query is refused or fails, needs too much memory or time.
        """
        try:
            reader = pa.ipc.open_stream(self._process.stdout)
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)
            yield from reader
        except (pa.ArrowException, OSError) as error:
            raise self._why() from error
        if self._process.wait() or self._failure is not None or self._late:
            raise self._why()
        self._listener.join()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            try:
                message = msgspec.json.decode(line, type=Message)
            except msgspec.MsgspecError:
                self._words = line.decode(errors="replace").strip() or self._words
                continue  # a library's own
            self.damages += message.damages
            if message.error:
                self._failure = message
            elif message.stage and self._told is not None:
                self._told(message.stage, message.percent)

    def _ring(self) -> None:
        self._late = True
        self._process.kill()

    def _why(self) -> QueryFailed:
        code = self._process.wait()
        self._listener.join()
        if self._late:
            return QueryFailed(
                f"there was no whole answer within {self._timeout:g} s",
                "give it more with --timeout, or less to read with --since and --until",
            )
        if self._failure is None:
            return QueryFailed(
                f"the query's process ended with {code}: {self._words or 'it said nothing'}",
                "if it needed more memory, --memory gives it more",
            )
        hints = {
            "memory": "give it more with --memory, or less to read with --since and --until",
            "refused": "`sluice log query --help` says what can be asked",
        }
        return QueryFailed(self._failure.error, hints.get(self._failure.kind, ""))
