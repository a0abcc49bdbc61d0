"""Loads of every kind at once, and waiting until the engine has done what it was told."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway_kit
import msgspec
import yaml
from grpc_load_kit import GrpcLoad, grpc_load
from load_kit import Load, load
from ray_kit import eventually, replicas

BODY = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
PATH = "/v2/models/m/infer"
QUIET_SECONDS = 1.0


class Loads(msgspec.Struct):
    """Keep-alive clients, clients that connect for every request, and a gRPC client."""

    kept: Load
    fresh: Load
    rpc: GrpcLoad

    def seen(self) -> str:
        """All of it, for people."""
        parts = {"keep-alive": self.kept, "fresh": self.fresh, "gRPC": self.rpc}
        return "; ".join(f"{name}: {one.summary()}" for name, one in parts.items())

    def assert_none_lost(self) -> None:
        """No request failed on a connection that was established; resets are only counted."""
        assert self.kept.lost == [], self.kept.summary()
        assert self.fresh.lost == [], self.fresh.summary()
        assert self.rpc.failures == [], self.rpc.summary()


@contextlib.contextmanager
def loads(gateway: gateway_kit.Running) -> Iterator[Loads]:
    """Loads that run before, during and after the block."""
    with (
        load(gateway.http, PATH, BODY) as kept,
        load(gateway.http, PATH, BODY, fresh=True) as fresh,
        grpc_load(gateway.grpc, "m") as rpc,
    ):
        time.sleep(QUIET_SECONDS)
        yield Loads(kept, fresh, rpc)
        time.sleep(QUIET_SECONDS)


def edit(file: Path, **more: Any) -> None:
    """Replace sections of a YAML file."""
    document = yaml.safe_load(file.read_text())
    document.update(more)
    file.write_text(yaml.safe_dump(document, sort_keys=False))


def apply(gateway: gateway_kit.Running, directory: Path) -> dict[str, Any]:
    """Apply, and wait until every process goes by it."""
    status, answer = gateway.apply(directory)
    assert status == 200, answer
    eventually(lambda: rolled(gateway)["done"], "everything follows")
    assert isinstance(answer, dict)
    return answer


def rolled(gateway: gateway_kit.Running) -> dict[str, Any]:
    """How far the engine is."""
    try:
        status, answer = gateway.ask(f"{gateway.admin}/api/v1/status", token=gateway.token)
    except OSError:  # control is being replaced
        return {"done": False, "failed": ""}
    assert status == 200, answer
    roll: dict[str, Any] = answer["roll"]
    return roll


def processes(gateway: gateway_kit.Running, role: str) -> set[int]:
    """Pids of those that run: on Ray as their replicas say, which are ahead of `engine.json`."""
    kept = replicas(gateway)
    if kept and role != "store":
        return {pid for name, (pid, _) in kept.items() if name.startswith(role)}
    return set(gateway.pids(role))
