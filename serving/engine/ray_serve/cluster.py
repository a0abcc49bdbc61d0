"""A Ray to run on: one of our own on loopback, or one that is running already.

Importing `ray` takes a second or two and reads the environment, so it happens late, after
`prepare` has written what Ray must know. Every call here blocks.
"""

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from serving.config.addresses import parse_address
from serving.engine.ray_serve import sweeper
from serving.errors import EngineError

__all__ = ["Cluster", "require_ray"]

MARK: Final = "SLUICE_SESSION"
_OURS: Final = "sluice"
"""What our applications' names begin with."""

_OLDEST: Final = (2, 60)
_NEWEST: Final = (2, 60)
_CONNECT_SECONDS: Final = 3.0
_LAST_WORDS_SECONDS: Final = 2.0
_OBJECT_STORE: Final = 80 << 20
"""Bytes; Ray's least. Nothing of ours goes through it."""

_FIXED: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's word for "loopback only", on Linux too: nothing of it is reachable from elsewhere.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Our workers count for themselves; Ray's metrics agents cost CPU and open ports.
    "RAY_enable_metrics_collection": "0",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_DEDUP_LOGS": "0",
    # gRPC remarks on every fork of a process that uses it; we fork once and exec.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "RAY_COLOR_PREFIX": "0",
}
_UNWANTED: Final = (
    # They would have Serve start a proxy and open ports of its own beside ours.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS",
    "RAY_SERVE_ENABLE_HA_PROXY",
    "RAY_ADDRESS",
)


def require_ray() -> str:
    """Ray's version, if it is there and one that this engine knows.

    Raises:
        EngineError: It is missing, or older or newer.
    """
    try:
        version = metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise EngineError(
            "the engine `ray` needs Ray Serve: install the extra `sluice-gateway[ray]`, or use "
            "--engine local"
        ) from None
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not _OLDEST <= numbers <= _NEWEST:
        raise EngineError(
            f"Ray {version} is installed, and the engine `ray` is made for 2.60; install "
            "`ray[serve]==2.60.*`, or use --engine local"
        )
    return version


class Cluster:
    """Ray, from `start` to `stop`.

    Args:
        address: `host:port` of a running one; None: one of our own.
        run: a folder for the token of our own.
    """

    def __init__(self, address: str | None, run: Path) -> None:
        self.address: Final = address
        self._run = run
        self._mark = f"{MARK}={secrets.token_hex(16)}"
        self._folder: Path | None = None
        self._sweeper: subprocess.Popen[bytes] | None = None

    def start(self, *, log: bool = True) -> None:
        """Start or join it, and Serve without its proxy.

        Raises:
            EngineError: It does not start, does not answer, or wants another token.
        """
        if self.address is None:
            self._prepare()
        else:
            _insist_on_answer(self.address)
        import ray  # noqa: PLC0415 - after the environment is set
        from ray import serve  # noqa: PLC0415

        for name in ("ray", "ray.serve"):
            logging.getLogger(name).setLevel(logging.ERROR)
        options: Mapping[str, Any] = {"address": self.address}
        if self.address is None:
            options = {
                "address": "local",
                "num_cpus": os.cpu_count(),
                "object_store_memory": _OBJECT_STORE,
                "_temp_dir": str(self._folder),
            }
        try:
            ray.init(
                include_dashboard=None if self.address else False,
                configure_logging=False,
                log_to_driver=log,
                namespace="sluice",
                **options,
            )
            serve.start(proxy_location="Disabled")
        except Exception as error:
            where = f"at {self.address}" if self.address else "on this machine"
            raise EngineError(f"Ray {where} cannot be used: {_first_line(error)}") from error

    def _prepare(self) -> None:
        token = self._run / "ray.token"
        token.unlink(missing_ok=True)
        with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        # Not under DATA: the names of Ray's sockets are long, and an address holds 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-ray-"))
        name, _, value = self._mark.partition("=")
        self._sweeper = subprocess.Popen(
            [sys.executable, "-I", "-S", sweeper.__file__, self._mark, str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        os.environ.update(
            _FIXED, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), **{name: value}
        )
        for unwanted in _UNWANTED:
            os.environ.pop(unwanted, None)

    def cpus(self) -> float:
        """CPUs of the whole cluster."""
        import ray  # noqa: PLC0415

        return float(ray.cluster_resources().get("CPU", 0.0))

    def nodes(self) -> dict[str, float]:
        """Machines that are alive: by address, their CPUs."""
        import ray  # noqa: PLC0415

        return {
            str(node["NodeManagerAddress"]): float(node["Resources"].get("CPU", 0.0))
            for node in ray.nodes()
            if node["Alive"]
        }

    def deploy(self, applications: list[dict[str, Any]]) -> None:
        """Have Serve run these applications; returns at once. What is as before goes on.

        Raises:
            EngineError: Other applications run there, and would be removed.
        """
        from ray import serve  # noqa: PLC0415
        from ray.serve.context import _get_global_client  # noqa: PLC0415
        from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415

        others = sorted(name for name in serve.status().applications if not name.startswith(_OURS))
        if others:
            raise EngineError(
                f"the Ray at {self.address} serves other applications ({', '.join(others)}), "
                "which deploying the gateway would remove; use a cluster of its own"
            )
        schema = ServeDeploySchema.model_validate(
            {"proxy_location": "Disabled", "applications": applications}
        )
        _get_global_client().deploy_apps(schema)

    def state(self, application: str) -> tuple[str, str]:
        """The application's state in Serve's word (`RUNNING`, `DEPLOY_FAILED` …), and why."""
        from ray import serve  # noqa: PLC0415

        status = serve.status().applications.get(application)
        if status is None:
            return "NOT_STARTED", ""
        messages = [status.message, *(one.message for one in status.deployments.values())]
        return status.status.value, "\n".join(filter(None, messages))

    def stop(self, applications: list[str]) -> None:
        """Drain the applications in this order; then leave Ray, or end it if it is ours."""
        import ray  # noqa: PLC0415
        from ray import serve  # noqa: PLC0415

        if ray.is_initialized():
            # Of a Ray of our own nothing is left to tidy up after this: it ends as a whole.
            for application in applications:
                if application in serve.status().applications:
                    serve.delete(application)
            ray.shutdown()

    def kill(self) -> None:
        """SIGKILL every process of a Ray of our own, except this one."""
        if self._folder is not None:
            sweeper.sweep(self._mark, str(self._folder), spare=os.getpid())

    def clean(self) -> None:
        """Let go of what `start` made on this machine, after `stop` or `kill`."""
        if self._folder is None:
            return
        self.kill()
        if self._sweeper is not None:
            self._sweeper.communicate(b"done\n")
            self._sweeper = None
        # This process's own Ray threads write their last lines about now.
        until = time.monotonic() + _LAST_WORDS_SECONDS
        while self._folder.exists() and time.monotonic() < until:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None
        (self._run / "ray.token").unlink(missing_ok=True)
        for name in (MARK, "RAY_AUTH_TOKEN_PATH"):
            os.environ.pop(name, None)


def application(
    name: str, import_path: str, args: msgspec.Struct, deployments: list[dict[str, Any]]
) -> dict[str, Any]:
    """One application as Serve's configuration files have it."""
    return {
        "name": name,
        "route_prefix": None,
        "import_path": import_path,
        "args": msgspec.to_builtins(args),
        "deployments": deployments,
    }


def _insist_on_answer(address: str) -> None:
    try:
        where = parse_address(address.removeprefix("ray://"))
    except ValueError as error:
        raise EngineError(f"engine.address: {error}") from error
    try:
        socket.create_connection((where.host, where.port), _CONNECT_SECONDS).close()
    except OSError as error:
        reason = error.strerror or "no answer"
        raise EngineError(
            f"no Ray answers at {address} (engine.address): {reason}; start one with `ray start "
            "--head`, or leave `address` out for one of our own"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
