"""A whole gateway for a test: a configuration written to a folder, and `sluice up` on it.

Ports are free ones, everything lives in the folder given, and the processes end with the
test process even if that is killed.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serving import lifeline

SLUICE = Path(sys.executable).parent / "sluice"
START_SECONDS = 90.0


def write_model(
    directory: Path, name: str, versions: dict[str, bytes], traffic: dict[str, Any], **more: Any
) -> None:
    """Write the files of one model's versions and its YAML."""
    for folder in ("models", "artifacts"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    sources = {}
    for version, content in versions.items():
        (directory / "artifacts" / f"{name}-{version}.onnx").write_bytes(content)
        sources[version] = {
            "path": f"../artifacts/{name}-{version}.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
        }
    document = {
        "schema_version": 1,
        "model": name,
        "versions": sources,
        "traffic": {"production": next(iter(versions)), **traffic},
        **more,
    }
    (directory / "models" / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def write_gateway(directory: Path, **more: Any) -> None:
    """Write `gateway.yaml` on free ports; `more` replaces or adds sections."""
    directory.mkdir(parents=True, exist_ok=True)
    free = {"http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    document = {"schema_version": 1, "listen": free, **more}
    (directory / "gateway.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


class Running:
    """A gateway that answers."""

    def __init__(
        self, process: "subprocess.Popen[str]", said: dict[str, Any], folder: Path
    ) -> None:
        self.process = process
        self.http: str = said["http"].rpartition("//")[2]
        self.grpc: str = said["grpc"].rpartition("//")[2]
        self.admin: str = said["admin"].rpartition("//")[2]
        self.data = Path(said["data"])
        self.token = Path(said["admin_token_file"]).read_text().strip()
        self.folder = folder

    def pids(self, role: str) -> list[int]:
        """The pids of the engine's children named `role…`, by its own report."""
        report = json.loads((self.data / "run" / "engine.json").read_bytes())
        return [p["pid"] for p in report["processes"] if p["name"].startswith(role) and p["pid"]]

    def ask(
        self, url: str, body: Any = None, *, method: str | None = None, token: str | None = None
    ) -> tuple[int, Any]:
        """Send JSON, get (status, JSON or text)."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{url}", data, method=method)
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, _decoded(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def infer(self, model: str, inputs: list[dict[str, Any]], path: str = "") -> tuple[int, Any]:
        """Ask a model over HTTP with JSON."""
        return self.ask(f"{self.http}/v2/models/{model}{path}/infer", {"inputs": inputs})

    def apply(self, directory: Path, **more: Any) -> tuple[int, Any]:
        """Have control publish this directory, as `sluice apply` does."""
        body = {"directory": str(directory), **more}
        return self.ask(f"{self.admin}/api/v1/config/apply", body, token=self.token)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


@contextlib.contextmanager
def running(directory: Path, *arguments: str, tied: bool = True) -> Iterator[Running]:
    """Start `sluice up DIR --json`, wait for its line, stop it with SIGTERM at the end."""
    data = directory.parent / f"{directory.name}-data"
    log = directory.parent / f"{directory.name}.log"
    launcher = [sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid())] if tied else []
    command = [*launcher, str(SLUICE), "up", str(directory), "--data", str(data), "--json"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the gateway did not start:\n{log.read_text()}"
        yield Running(process, json.loads(line), directory.parent)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
