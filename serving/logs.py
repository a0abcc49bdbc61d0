"""The processes' own logs: one line an event, on standard error."""

import json
import logging
import sys
import time
from typing import Literal

__all__ = ["configure"]


def _one_line(text: str) -> str:
    """Escape what could forge a second line or steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock}.{int(record.msecs):03d} {record.levelname.lower():7} {record.name}: "
        line += _one_line(record.getMessage())
        if record.exc_info:
            # Indented, so that no line of an exception's own text looks like an event.
            for more in self.formatException(record.exc_info).split("\n"):
                line += "\n    " + _one_line(more)
        return line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": record.created,
            "level": record.levelname.lower(),
            "process": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        # ASCII, because JSON alone would let C1 controls and line separators through.
        return json.dumps(entry)


def configure(
    level: str = "info", style: Literal["text", "json"] = "text", *, process: str = "sluice"
) -> logging.Logger:
    """Set up this process's logging and return its logger.

    `process` is the name lines carry (`worker-0`, `control`). Calling it again replaces the
    earlier set-up.
    """
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(logging.WARNING)
    logger = logging.getLogger(process)
    logger.setLevel(level.upper())
    return logger
