"""One process of a `dedicated` version: `python -m serving.worker.host`; started by an engine.

It loads the version that `DATA/hosts.json` has under its id and then answers inference on a Unix
socket. On SIGTERM it takes its socket away, finishes what is in flight, and exits 0.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any, Final

from serving.clock import SystemClock
from serving.config.hosts import (
    HostSpec,
    data_socket,
    host_name,
    private_socket,
    read_hosts,
)
from serving.config.keys import STORE_VARIABLE
from serving.errors import InvalidArtifact
from serving.metrics import MetricsFile
from serving.protocol.tensors import TensorLimits
from serving.tasks import end
from serving.unix_socket import bound_for_owner
from serving.upstream.inline import InlineUpstream
from serving.worker.host_plane import HostPlane
from serving.worker.http.listener import HttpListener
from serving.worker.life import Pulse, exit_now, live, settle_memory
from serving.worker.model_files import at_hand
from serving.worker.private import PrivateSocket
from serving.worker.settings import Settings

__all__ = ["ModelHost", "main"]

_NOTICE_SECONDS: Final = 0.25
"""Workers look for sockets ten times a second; before that they still send requests here."""

_CLOSE_SECONDS: Final = 1.0
_BACKLOG: Final = 2048


class ModelHost:
    """Wires a listener to one session and owns their lives."""

    def __init__(self, arguments: argparse.Namespace, settings: Settings) -> None:
        self._data = Path(arguments.data)
        self.spec: Final[HostSpec] = _find(self._data, arguments.host)
        self._settings = settings
        self._name = host_name(self.spec.id, arguments.number)
        self._log = logging.getLogger(self._name)
        self._run = self._data / "run"
        self._socket = data_socket(self._run, self.spec.id, arguments.number)
        self._stop = asyncio.Event()
        self._state = "loading"
        folder = self._data / "metrics"
        folder.mkdir(parents=True, exist_ok=True)
        self._metrics = MetricsFile(
            folder / f"{self._name}-{arguments.pid}-{time.time_ns()}.metrics"
        )
        self._pulse = Pulse(self._metrics)
        clock = SystemClock()
        self._upstream = InlineUpstream(
            self.spec.model,
            self.spec.version,
            at_hand(self.spec.staged, self._data, Path(arguments.config)),
            self.spec.serve,
            self._metrics,
            clock,
        )
        self._plane = HostPlane(self.spec, self._upstream, clock)
        limits = self._settings.gateway.limits
        # Its callers are workers, and counted there: what this listener counts nobody reads.
        aside = self._run / f"{self._name}.numbers"
        self._aside = MetricsFile(aside)
        aside.unlink()
        self._http = HttpListener(
            self._plane,
            limits,
            TensorLimits(
                max_elements=limits.max_elements,
                max_inputs=limits.max_inputs,
                max_json_depth=limits.max_json_depth,
            ),
            self._aside,
            header_names=self._plane.header_names,
            clock=clock,
        )
        self._private = PrivateSocket(
            private_socket(self._run, self.spec.id, arguments.number),
            {
                "GET /healthz": self._healthz,
                "GET /readyz": self._healthz,
                "GET /load": lambda _: (200, self._load()),
            },
        )

    async def run(self) -> None:
        """Load, then serve until SIGTERM. Raises InvalidArtifact if it cannot be loaded."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        # Ctrl-C reaches the whole terminal group; the engine decides what it means for us.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        await self._private.start()
        pulse = loop.create_task(self._pulse.run())
        stopping = loop.create_task(self._stop.wait())
        loading = loop.create_task(self._upstream.load())
        try:
            await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                loading.result()
                await self._listen()
                await stopping
                await self._drain()
        finally:
            self._socket.unlink(missing_ok=True)
            await end(pulse, stopping, loading)
            await self._private.stop()
            self._metrics.close()
            self._aside.close()

    async def _listen(self) -> None:
        settle_memory()
        # Under its final name only once it accepts: callers connect as soon as they see it.
        self._socket.unlink(missing_ok=True)
        fresh = self._socket.with_suffix(".new")
        await self._http.start([bound_for_owner(fresh, backlog=_BACKLOG)], None)
        fresh.rename(self._socket)
        self._state = "ready"
        self._log.info("serving %s", self.spec.name)

    async def _drain(self) -> None:
        self._state = "draining"
        self._socket.unlink(missing_ok=True)
        await asyncio.sleep(_NOTICE_SECONDS)
        self._plane.draining = True
        timeout = float(self._settings.gateway.limits.drain_timeout)
        abandoned = await self._http.drain(timeout)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._upstream.close()
        if abandoned:
            self._log.warning("drained; %d requests abandoned after %gs", abandoned, timeout)
        else:
            self._log.info("drained")

    def _healthz(self, _: dict[str, str]) -> tuple[int, Any]:
        return (503 if self._state == "loading" else 200), {"state": self._state}

    def _load(self) -> dict[str, float]:
        return {
            "in_flight": float(self._plane.in_flight),
            "busy_seconds": time.process_time(),
            "busy": self._pulse.busy,
            "connections": float(self._http.connections),
        }


def _find(data: Path, id_: str) -> HostSpec:
    for spec in read_hosts(data):
        if spec.id == id_:
            return spec
    raise InvalidArtifact(f"no version with the id {id_} is to be served by hosts any more")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.worker.host",
        description="One process of a dedicated model version. An engine starts it.",
    )
    parser.add_argument("--data", required=True, help="data directory")
    parser.add_argument("--config", required=True, help="configuration directory")
    parser.add_argument("--host", required=True, help="id of the version in DATA/hosts.json")
    parser.add_argument("--number", required=True, type=int, help="which of its processes")
    parser.add_argument(
        "--generation", type=int, default=0, help="settings to go by [default: CONFIG's own]"
    )
    parser.add_argument("--parent", type=int, help="exit when this process does")
    # It has no business with the store, whose address may hold a password.
    os.environ.pop(STORE_VARIABLE, None)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run until it has drained (exit 0), or say why that is impossible (exit 1)."""
    arguments = _arguments(argv)
    arguments.pid = os.getpid()

    async def serve(settings: Settings) -> None:
        await ModelHost(arguments, settings).run()

    return live(host_name(arguments.host, arguments.number), arguments, serve)


if __name__ == "__main__":
    exit_now(main())
