"""A worker or control that serves nothing: it listens, answers its private socket, and drains.

It keeps the command-line contract of the real programs and misbehaves on request, so that the
engine can be tested without them. Every start, stop and death wish is a line in DATA/events.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from urllib.parse import unquote

from serving.config.keys import STORE_VARIABLE
from serving.lifeline import die_with_parent

BODIES = {
    b"/load": b'{"in_flight": 3, "busy_seconds": 1.5, "connections": 2}',
    b"/readyz": b'{"ready": true, "state": "ready", "revision": 7}',
}


def parsed() -> argparse.Namespace:
    """Arguments of the contract, and the misbehaviours."""
    parser = argparse.ArgumentParser()
    for option in ("--data", "--config", "--worker", "--http", "--grpc", "--admin"):
        parser.add_argument(option)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--insecure-bind", action="store_true")
    parser.add_argument("--generation", type=int, default=0)
    parser.add_argument("--crash-generation", type=int, help="workers of this one crash")
    parser.add_argument("--crash", action="store_true", help="die at once, with last words")
    parser.add_argument("--crash-worker", default="", help="only this worker crashes")
    parser.add_argument("--never-ready", action="store_true")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--mute", action="store_true", help="answer no probe at all")
    return parser.parse_args()


def note(data: Path, *words: object) -> None:
    """Append one event."""
    line = f"{time.monotonic_ns()} {' '.join(map(str, words))}\n"
    with (data / "events").open("a") as events:  # O_APPEND: lines of several processes stay whole
        events.write(line)


def store_answers(url: str) -> bool:
    """Whether the store still accepts connections."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(unquote(url.removeprefix("unix://"))) == 0


async def main(options: argparse.Namespace) -> None:
    """Listen until SIGTERM."""
    data = Path(options.data)
    name = "control" if options.worker is None else f"worker-{options.worker}"
    note(data, "started", name, os.getpid())
    unfit = options.generation and options.generation == options.crash_generation
    if options.crash or unfit or options.crash_worker == options.worker is not None:
        sys.stderr.write(f"{name} cannot go on: the reason\n")
        raise SystemExit(7)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, (lambda: None) if options.ignore_sigterm else stop.set)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
        except (EOFError, OSError):  # whoever asked has given up
            writer.close()
            return
        body = BODIES.get(target, b"ok")
        refused = target == b"/readyz" and options.never_ready
        status = b"503 Service Unavailable" if refused else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        writer.close()
        if target.startswith(b"/drain"):
            stop.set()

    async def who(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        writer.write(f"{name}\n".encode())
        writer.close()

    servers = []
    for address in filter(None, (options.http, options.grpc, options.admin)):
        host, _, port = address.rpartition(":")
        shared = options.worker is not None
        servers.append(
            await asyncio.start_server(who, host.strip("[]"), int(port), reuse_port=shared or None)
        )
    if not options.mute:
        await asyncio.start_unix_server(answer, str(data / "run" / f"{name}.sock"))
    sys.stderr.write(f"{name} listens\n")
    await stop.wait()
    note(data, "draining", name)
    for server in servers:
        server.close()
    note(data, "ended", name, "store" if store_answers(os.environ[STORE_VARIABLE]) else "no-store")


if __name__ == "__main__":
    given = parsed()
    die_with_parent(given.parent)
    asyncio.run(main(given))
