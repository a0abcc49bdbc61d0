"""Children's output, line by line, without ever letting a slow terminal stop the gateway.

A child writes into a pipe that the engine empties. If the engine then blocked on its own
standard error (a paused terminal, a full disk), it would stop emptying pipes and probing, and
the children would block in their next log call. So lines go through a bounded queue to a
thread that may block as long as it likes.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

__all__ = ["LineQueue", "LineSink", "LineSplitter", "prefixed"]

LineSink = Callable[[str, str], None]
"""Takes (process name, one line without its end)."""

LONGEST_LINE_BYTES: Final = 16 << 10
_CUT: Final = b" [cut]"


class LineSplitter:
    """Bytes in, whole lines out.

    A line past `LONGEST_LINE_BYTES` is cut there, the rest of it is thrown away, and it ends
    in `[cut]`: memory stays bounded whatever a child prints.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False

    def feed(self, data: bytes) -> list[str]:
        """Lines that `data` completes. Bytes that are not UTF-8 are replaced."""
        *whole, rest = data.split(b"\n")
        lines = [self._finish(part) for part in whole]
        self._keep(rest)
        return lines

    def finish(self) -> list[str]:
        """The last line, if it had no end."""
        return [self._finish(b"")] if self._rest else []

    def _keep(self, part: bytes) -> None:
        if self._skipping:
            return
        room = LONGEST_LINE_BYTES - len(self._rest)
        self._rest += part[:room]
        if len(part) > room:
            self._rest += _CUT
            self._skipping = True

    def _finish(self, part: bytes) -> str:
        self._keep(part)
        line = self._rest.rstrip(b"\r").decode("utf-8", "replace")
        self._rest.clear()
        self._skipping = False
        return line


def prefixed(process: str, line: str) -> str:
    """How a child's line looks among the engine's own. JSON lines already name their process."""
    return line if line.startswith("{") else f"{process:<9}| {line}"


class LineQueue:
    """Hold at most `capacity` lines until a thread has written them to `stream` (standard error).

    Past that a new line is dropped and counted; the count is written when there is room again.
    """

    def __init__(self, stream: TextIO | None = None, capacity: int = 10_000) -> None:
        self._stream = stream
        self._capacity = capacity
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._write_all, name="log-lines", daemon=True)
        self._thread.start()

    def __call__(self, process: str, line: str) -> None:
        """Queue one line; never blocks on the stream."""
        with self._changed:
            if len(self._lines) >= self._capacity:
                self._dropped += 1
                return
            self._lines.append(prefixed(process, line))
            self._changed.notify()

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Write what is queued, for at most `timeout_seconds`, and stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                lines, dropped = list(self._lines), self._dropped
                self._lines.clear()
                self._dropped = 0
                closed = self._closed
            if dropped:
                lines.append(prefixed("engine", f"{dropped} log lines dropped: output was blocked"))
            # Asked for anew each time: a progress display takes sys.stderr over while it is shown.
            stream = self._stream if self._stream is not None else sys.stderr
            try:
                stream.write("".join(line + "\n" for line in lines))
                stream.flush()
            except (OSError, ValueError):
                # Nobody reads us any more (a closed terminal); the gateway goes on.
                pass
            if closed:
                return
