"""What workers and model hosts have in common as processes: how they begin, settle and measure."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import uvloop

from serving import logs
from serving.errors import SluiceError
from serving.lifeline import die_with_parent
from serving.metrics import MetricsFile
from serving.worker.settings import Settings, load_settings

__all__ = ["Pulse", "exit_now", "live", "resident_bytes", "settle_memory"]

_PULSE_SECONDS: Final = 0.25
_BUSY_SECONDS: Final = 2.0
"""Time constant of the share of a core that is shown to people."""

_SWITCH_SECONDS: Final = 0.0005
"""After which the event loop has the interpreter back from a thread that works in Python. A run
of a model lets go of it, and the prediction log, say, would keep it for Python's own 5 ms."""

_PAGE: Final = os.sysconf("SC_PAGESIZE")


class Pulse:
    """Measures what only a timer can: loop lag, CPU time, memory.

    Args:
        metrics: where they are counted.
        beat: called each time, to bring other numbers up to date.
    """

    def __init__(self, metrics: MetricsFile, beat: Callable[[], None] = lambda: None) -> None:
        self.busy = 0.0
        """Share of a core used lately."""

        self._metrics = metrics
        self._beat = beat

    async def run(self) -> None:
        """For ever, until cancelled."""
        loop = asyncio.get_running_loop()
        lag = self._metrics.gauge("sluice_loop_lag_seconds")
        busy = self._metrics.counter("sluice_busy_seconds_total")
        memory = self._metrics.gauge("sluice_resident_memory_bytes")
        while True:
            due = loop.time() + _PULSE_SECONDS
            await asyncio.sleep(_PULSE_SECONDS)
            late = max(0.0, loop.time() - due)
            lag.set(late)
            used = time.process_time() - busy.value
            busy.inc(used)
            elapsed = late + _PULSE_SECONDS
            self.busy += (used / elapsed - self.busy) * min(1.0, elapsed / _BUSY_SECONDS)
            memory.set(resident_bytes())
            self._beat()


def settle_memory() -> None:
    """What exists now stays: keep it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE


def live(
    name: str,
    arguments: Any,
    serve: Callable[[Settings], Coroutine[Any, Any, None]],
    run: Callable[..., Any] = uvloop.run,
) -> int:
    """Run a process until it has drained (exit 0), or say why that is impossible (exit 1).

    Args:
        name: of the process, for its log.
        arguments: its command line, with `config`, `data`, `generation` and `parent`.
        serve: what it does, by its settings.
        run: runs it.
    """
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        settings = load_settings(Path(arguments.config), Path(arguments.data), arguments.generation)
        logs.configure(settings.gateway.logs.level, settings.gateway.logs.format, process=name)
        sys.setswitchinterval(_SWITCH_SECONDS)
        run(serve(settings))
    except SluiceError as error:
        print(f"{name}: {error.message}", file=sys.stderr)  # noqa: T201 - the engine shows it
        return 1
    except OSError as error:
        print(f"{name}: {error.strerror or error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def exit_now(code: int) -> None:
    """End the process without taking the interpreter down.

    A model run that the drain gave up may still be inside ONNX Runtime, in its own thread, and
    taking things down around it would abort the process.
    """
    logging.shutdown()
    os._exit(code)
