"""Addresses that clients are tested against.

`gateways` starts each kind of server once per test process and gives its `Gateway`. A further
kind (a real worker, a whole gateway) is one more entry of `COMMANDS` that prints the same line
of JSON and serves the same models.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

TOKEN = "let-me-in"
_TWIN = [sys.executable, str(Path(__file__).with_name("serve_plane.py"))]
COMMANDS: dict[str, list[str]] = {
    "aio": [*_TWIN, "--grpc=aio"],
    "native": [*_TWIN, "--grpc=native"],
    "guarded": [*_TWIN, "--grpc=native", f"--token={TOKEN}"],
}
_DATATYPES = "BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FP16 BF16 FP32 FP64 BYTES"


class Models(msgspec.Struct, frozen=True):
    """Names of the served models.

    `identity`: by datatype, INPUT0 `[n, m]` to OUTPUT0. `simple`: INT32 INPUT0 and INPUT1 `[n, 16]`
    to their sum OUTPUT0 and difference OUTPUT1. `waiting`: answers only when its deadline passes.
    `loading`: known and not ready. The last two are None where there is no such model.
    """

    identity: dict[str, str]
    simple: str = "simple"
    waiting: str | None = "waiting"
    loading: str | None = "loading"


class Gateway(msgspec.Struct, frozen=True):
    """A running server: `host:port` of both listeners, and what carries gRPC."""

    http: str
    grpc: str
    kind: str
    models: Models


@pytest.fixture(scope="session")
def gateways() -> Iterator[Callable[[str], Gateway]]:
    """Start a kind of `COMMANDS` on first use; end all of them with the session."""
    running: dict[str, tuple[subprocess.Popen[bytes], Gateway]] = {}

    def get(name: str) -> Gateway:
        if name not in running:
            process = subprocess.Popen(
                COMMANDS[name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"{name} ended before it served"
            said: dict[str, Any] = json.loads(line)
            models = Models({kind: f"identity_{kind.lower()}" for kind in _DATATYPES.split()})
            running[name] = process, Gateway(models=models, **said)
        return running[name][1]

    yield get
    for process, _ in running.values():
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.stdout.close()


@pytest.fixture(scope="session")
def gateway(gateways: Callable[[str], Gateway]) -> Gateway:
    """A server open to everybody, gRPC carried by grpc.aio."""
    return gateways("aio")


@pytest.fixture(scope="session")
def http_address(gateway: Gateway) -> str:
    """`host:port` of an HTTP listener."""
    return gateway.http


@pytest.fixture(scope="session")
def grpc_address(gateway: Gateway) -> str:
    """`host:port` of a gRPC listener."""
    return gateway.grpc
