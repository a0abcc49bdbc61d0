"""Serve the in-memory plane over real sockets until standard input closes.

Prints one JSON line: the addresses, and which server carries gRPC. Run as a process of its own,
because clients and servers of the same protocol in one process would share loops and threads.
"""

import argparse
import asyncio
import json
import socket
import sys
import tempfile
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conformance.grpc_plane import TwinPlane

from serving.clock import SystemClock
from serving.config.schema import Limits
from serving.metrics import MetricsFile
from serving.protocol.tensors import TensorLimits
from serving.worker.grpc.listener import GrpcListener
from serving.worker.http.listener import HttpListener


async def serve(arguments: argparse.Namespace, folder: Path) -> None:
    """Start both listeners, say where, and drain when the parent lets go."""
    tokens = {f"Bearer {arguments.token}": frozenset({"infer"})} if arguments.token else None
    plane = TwinPlane(tokens)
    wiring = (plane, Limits(), TensorLimits(), MetricsFile(folder / "twin.metrics"))
    http = HttpListener(*wiring, header_names=frozenset, clock=SystemClock())
    grpc = GrpcListener(
        *wiring, header_names=frozenset, clock=SystemClock(), native=arguments.grpc == "native"
    )
    listening = socket.create_server(("127.0.0.1", 0))
    await http.start([listening], None)
    port = await grpc.start("127.0.0.1", 0)
    addresses = {
        "http": f"127.0.0.1:{listening.getsockname()[1]}",
        "grpc": f"127.0.0.1:{port}",
        "kind": grpc.kind,
    }
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    http.begin_drain()
    grpc.begin_drain()
    await asyncio.gather(http.drain(2.0), grpc.drain(2.0))


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc", choices=("native", "aio"), default="aio")
    parser.add_argument("--token", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(serve(arguments, Path(folder)))


if __name__ == "__main__":
    main()
