"""How many fresh connections are reset while workers leave a port.

    python loadtests/bench_drain.py [--drains 10] [--clients 16] [--front native|aio]

Starts a gateway of two workers and connects to both ports as fast as so many clients can, each time
with a new connection that sends one request (HTTP) or the greeting (gRPC) and waits for the first
byte of the answer. Meanwhile workers are drained in turns, and started again by the engine. A
connection that ends without a byte counts as reset. Stops by itself.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import gateway_kit
import onnx_models

from serving.unix_http import ask

HTTP = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
GRPC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


class Count:
    """What came of the connections to one port."""

    def __init__(self) -> None:
        self.made = 0
        self.reset = 0


async def connect(address: str, words: bytes, count: Count, stop: asyncio.Event) -> None:
    """Connect again and again."""
    host, _, port = address.rpartition(":")
    while not stop.is_set():
        count.made += 1
        writer = None
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(words)
            count.reset += not await asyncio.wait_for(reader.read(1), 10)
        except OSError:
            count.reset += 1
        finally:
            if writer is not None:
                writer.transport.abort()


async def drain(gateway: gateway_kit.Running, number: int, how: str) -> None:
    """Have one worker leave, and wait until it is back."""
    socket = gateway.data / "run" / f"worker-{number}.sock"
    [pid] = gateway.pids(f"worker-{number}")
    await ask(socket, f"/drain{how}", method="POST", timeout_seconds=2.0)
    while True:
        await asyncio.sleep(0.05)
        answer = await ask(socket, "/readyz", timeout_seconds=1.0)
        ready = answer is not None and answer.status == 200
        if ready and pid not in gateway.pids(f"worker-{number}"):
            return


async def measure(
    gateway: gateway_kit.Running, drains: int, how: str, clients_each: int
) -> dict[str, Any]:
    """Drain so many times under load."""
    stop = asyncio.Event()
    http, rpc = Count(), Count()
    clients = [
        asyncio.create_task(connect(address, words, count, stop))
        for address, words, count in (
            (gateway.http, HTTP, http),
            (gateway.grpc, GRPC, rpc),
        )
        for _ in range(clients_each)
    ]
    began = time.monotonic()
    for turn in range(drains):
        await drain(gateway, turn % 2, how)
    seconds = time.monotonic() - began
    stop.set()
    await asyncio.gather(*clients)
    return {"http": http, "grpc": rpc, "seconds": seconds}


def main() -> None:
    """Measure both ways to leave."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--drains", type=int, default=10, help="workers that leave (10)")
    parser.add_argument("--clients", type=int, default=16, help="at once, for each port (16)")
    parser.add_argument(
        "--front", choices=["native", "aio"], default="native", help="gRPC's server (native)"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "conf"
        # Beyond loopback grpc.aio serves; the clients come over loopback all the same.
        host = "127.0.0.1" if arguments.front == "native" else "0.0.0.0"  # noqa: S104
        listen = {"http": f"{host}:0", "grpc": f"{host}:0", "admin": "127.0.0.1:0"}
        gateway_kit.write_gateway(directory, listen=listen, engine={"workers": 2})
        gateway_kit.write_model(directory, "m", {"v1": onnx_models.doubler(3)}, {})
        with gateway_kit.running(directory, "--insecure-bind") as gateway:
            gateway.http = gateway.http.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
            gateway.grpc = gateway.grpc.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
            for name, how in (("led to siblings", "?patience=1"), ("just closed", "")):
                seen = asyncio.run(measure(gateway, arguments.drains, how, arguments.clients))
                for port in ("http", "grpc"):
                    count = seen[port]
                    sys.stdout.write(
                        f"{arguments.front} {name:16} {port}: {count.reset} reset of "
                        f"{count.made} fresh connections, {arguments.drains} drains, "
                        f"{count.made / seen['seconds']:.0f} a second\n"
                    )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
