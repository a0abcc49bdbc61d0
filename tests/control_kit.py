"""What several tests of the control process share: configurations, a store, a worker's double."""

import asyncio
import hashlib
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import onnx_models
import yaml

from serving.config.keys import WorkerReport
from serving.control.stores.store import Store
from serving.engine.embedded_store import find_server


class ConfigDirectory:
    """A configuration directory with one model `demo`, edited by writing again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("models", "features", "artifacts"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.digests: dict[str, str] = {}
        self.artifact("v1", onnx_models.doubler())
        self.artifact("v2", onnx_models.linear(1, 1))
        self.gateway()
        self.model()

    def artifact(self, name: str, content: bytes) -> str:
        """Write a model file; its digest."""
        (self.root / "artifacts" / f"{name}.onnx").write_bytes(content)
        self.digests[name] = hashlib.sha256(content).hexdigest()
        return self.digests[name]

    def gateway(self, **settings: Any) -> None:
        """Write gateway.yaml."""
        settings.setdefault("listen", {"admin": "127.0.0.1:0"})
        (self.root / "gateway.yaml").write_text(yaml.safe_dump(settings))

    def model(self, name: str = "demo", **more: Any) -> None:
        """Write one model's file: versions v1 and v2, v1 in production."""
        body = {
            "model": name,
            "versions": {
                version: {"path": f"../artifacts/{version}.onnx", "sha256": digest}
                for version, digest in self.digests.items()
            },
            "entity": {"person_id": "INT64"},
            "traffic": {"production": "v1", "assignment": {"key": "person_id"}},
        }
        (self.root / "models" / f"{name}.yaml").write_text(yaml.safe_dump({**body, **more}))

    def traffic(self, **more: Any) -> None:
        """Write the model with another traffic plan."""
        plan = {"production": "v1", "assignment": {"key": "person_id"}, **more}
        self.model(traffic=plan)


class Valkey:
    """A real server on a Unix socket, ready when made."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "store.sock"
        self.url = f"unix://{self.socket}"
        self.process = subprocess.Popen(
            [
                find_server(),
                *("--port", "0", "--unixsocket", self.socket, "--dir", folder, "--save", ""),
                *options,
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        for line in self.process.stdout:
            if "ready to accept connections" in line.lower():
                break

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def ask_control(data: Path, method: str, path: str) -> tuple[int, Any]:
    """Ask a control process over its private socket; status 0 if it does not answer."""
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            token = (data / "admin.token").read_text().strip()
            asking.connect(str(data / "run" / "control.sock"))
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            asking.sendall(
                f"{head}Authorization: Bearer {token}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
            )
            answer = asking.makefile("rb").read()
        except OSError:
            return 0, None
    top, _, body = answer.partition(b"\r\n\r\n")
    return (int(top.split()[1]), json.loads(body)) if top else (0, None)


class FakeWorker:
    """Reports every published revision as applied (or refused), as a worker would."""

    def __init__(self, store: Store, name: str = "worker-0", refuse: str = "") -> None:
        self._store = store
        self.name = name
        self.refuse = refuse
        self.revision = 0
        self.reported = asyncio.Event()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            snapshot = await self._store.snapshot()
            seen = snapshot.revision if snapshot else 0
            if not self.refuse:
                self.revision = seen
            await self._store.report(
                WorkerReport(
                    worker=self.name,
                    state="ready" if self.revision else "loading",
                    revision=self.revision,
                    reported_at=time.time(),
                    pid=1,
                    resident_bytes=50 << 20,
                    in_flight=2,
                    refused_revision=seen if self.refuse else 0,
                    refused_reason=self.refuse,
                )
            )
            self.reported.set()
            await asyncio.sleep(0.02)
