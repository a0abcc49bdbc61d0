"""Addresses that clients are tested against, and an HTTP listener in the test's own process.

`gateways` starts each kind of server once per test process and gives its `Gateway`: the
listeners over a plane in memory (`aio`, `native`, `guarded` with a token), `whole`, the programs
of `sluice up` with ONNX models, and `ray`, the same kept by Ray Serve. A further kind is one more
entry of `STARTERS`.

`rig`, and a `client` of it: one listener for each test, whose time stands still; `ticking` is one
whose time does not. A file whose tests want another names its own the same.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from conformance.gateway_models import IDENTITY, running_gateway
from http_rig import Client, HttpRig
from ray_kit import ON_RAY, shared_gateway

from serving.clock import ManualClock

TOKEN = "let-me-in"
_TWIN = [sys.executable, str(Path(__file__).with_name("serve_plane.py"))]


class Models(msgspec.Struct, frozen=True):
    """Names of the served models.

    `identity`: by datatype, INPUT0 `[n, m]` to OUTPUT0. `simple`: INT32 INPUT0 and INPUT1 `[n, 16]`
    to their sum OUTPUT0 and difference OUTPUT1. `waiting`: answers only when its deadline passes.
    `loading`: known and not ready, None where there is no such model.
    """

    identity: dict[str, str]
    simple: str = "simple"
    waiting: str = "waiting"
    loading: str | None = "loading"


class Gateway(msgspec.Struct, frozen=True):
    """A running server: `host:port` of both listeners, and what carries gRPC."""

    http: str
    grpc: str
    kind: str
    models: Models


@contextlib.contextmanager
def _twin(*arguments: str) -> Iterator[Gateway]:
    """`serve_plane.py` in a process of its own, which ends with its standard input."""
    process = subprocess.Popen([*_TWIN, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "the server ended before it served"
        yield Gateway(models=Models(IDENTITY), **json.loads(line))
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            process.stdout.close()


@contextlib.contextmanager
def _whole(factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`sluice up` with one worker; its gRPC is on loopback, so the native front serves."""
    with running_gateway(factory.mktemp("whole")) as running:
        models = Models(IDENTITY, loading=None)
        yield Gateway(running.http, running.grpc, "pygrpc_native", models)


@contextlib.contextmanager
def _on_ray(factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The same on Ray; one for all test processes."""
    running = shared_gateway(factory)
    yield Gateway(running.http, running.grpc, "pygrpc_native", Models(IDENTITY, loading=None))


Starter = Callable[[pytest.TempPathFactory], contextlib.AbstractContextManager[Gateway]]
STARTERS: dict[str, Starter] = {
    "aio": lambda _: _twin("--grpc=aio"),
    "native": lambda _: _twin("--grpc=native"),
    "guarded": lambda _: _twin("--grpc=native", f"--token={TOKEN}"),
    "whole": _whole,
    "ray": _on_ray,
}


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Gateway]]:
    """Start a kind of `STARTERS` on first use; end all of them with the session."""
    running: dict[str, Gateway] = {}
    with contextlib.ExitStack() as stack:

        def get(name: str) -> Gateway:
            if name not in running:
                running[name] = stack.enter_context(STARTERS[name](tmp_path_factory))
            return running[name]

        yield get


@pytest.fixture(scope="session", params=["aio", "whole", ON_RAY])
def gateway(request: pytest.FixtureRequest, gateways: Callable[[str], Gateway]) -> Gateway:
    """A server open to everybody: the plane in memory, the whole gateway, and on Ray."""
    return gateways(request.param)


@pytest.fixture(scope="session")
def http_address(gateway: Gateway) -> str:
    """`host:port` of an HTTP listener."""
    return gateway.http


@pytest.fixture(scope="session")
def grpc_address(gateway: Gateway) -> str:
    """`host:port` of a gRPC listener."""
    return gateway.grpc


@pytest.fixture
def clock() -> ManualClock:
    """Moves only when a test says so."""
    return ManualClock()


@pytest.fixture
def rig(tmp_path: Path, clock: ManualClock) -> Iterator[HttpRig]:
    """Default limits: 5 s for a head, 10 s for a body, 60 s idle; time stands still."""
    with HttpRig(tmp_path, clock=clock) as rig:
        yield rig


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[HttpRig]:
    """The same on the machine's own clock."""
    with HttpRig(tmp_path) as rig:
        yield rig


@pytest.fixture
def client(rig: HttpRig) -> Iterator[Client]:
    """One connection to it."""
    with rig.connect() as client:
        yield client
