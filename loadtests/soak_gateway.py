"""The gateway under the soak test: started with the probe, changed through its admin port."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from serving import lifeline

__all__ = ["Refused", "SoakGateway", "running"]

PROBE: Final = Path(__file__).parent / "soak_probe"
STOP_SECONDS: Final = 60.0
CALL_SECONDS: Final = 60.0


class Refused(Exception):
    """The admin port said no; the message has its words."""


class SoakGateway:
    """A running gateway. `said` is the line of `sluice up --json`, `probe` the probes' folder."""

    def __init__(self, process: "subprocess.Popen[str]", said: dict[str, Any], probe: Path) -> None:
        self.pid = process.pid
        self.probe = probe
        self.http: str = said["http"].rpartition("//")[2]
        self.grpc: str = said["grpc"].rpartition("//")[2]
        self._admin: str = "http://" + said["admin"].rpartition("//")[2]
        self._data = Path(said["data"])
        self._token = Path(said["admin_token_file"]).read_text().strip()

    def processes(self) -> dict[str, int]:
        """Pids by name: the engine and all that it runs."""
        report = json.loads((self._data / "run" / "engine.json").read_bytes())
        found = {one["name"]: one["pid"] for one in report["processes"] if one["pid"]}
        return {"engine": report["pid"], **found}

    def call(self, path: str, body: Any = None) -> Any:
        """Ask the admin port; POST if there is a body. Raises Refused."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._admin}{path}", data)  # noqa: S310 - loopback
        request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:  # noqa: S310
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                words = error.read().decode(errors="replace")
            raise Refused(f"{path}: {error.code} {words}") from error
        except OSError as error:
            raise Refused(f"{path}: {error}") from error


@contextmanager
def running(directory: Path, data: Path) -> Iterator[SoakGateway]:
    """`sluice up` on a directory, each process with a probe; stopped at the end.

    Raises:
        SystemExit: it does not start; what it printed is shown.
    """
    probe = data.parent / "probe"
    probe.mkdir()
    sluice = shutil.which("sluice", path=str(Path(sys.executable).parent)) or "sluice"
    # Through the launcher the gateway ends with us even if we are killed.
    tied = [sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid())]
    paths = [str(PROBE), os.environ.get("PYTHONPATH", "")]
    log = data.parent / "gateway.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*tied, sluice, "up", str(directory), "--data", str(data), "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in paths if path),
                "SLUICE_SOAK_PROBE": str(probe),
                # Milliseconds, not five seconds: a span that waits to be exported is no leak.
                "OTEL_BSP_SCHEDULE_DELAY": "500",
            },
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"the gateway did not start; it printed:\n{log.read_text()}")
        yield SoakGateway(process, json.loads(line), probe)
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
