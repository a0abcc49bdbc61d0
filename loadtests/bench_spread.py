"""How evenly connections spread over workers that share a port: the kernel alone, and a gateway.

    python loadtests/bench_spread.py                       # 4, 8 and 16 workers, 32 connections
    python loadtests/bench_spread.py --at-once             # connections begun together
    python loadtests/bench_spread.py --grpc native         # gRPC's port; or aio
    python loadtests/bench_spread.py --kernel-only --connections 200 --trials 1000 --json

Opens as many bare listeners on one loopback port as there would be workers, connects, and counts
who was given how many; again for each trial, with fresh connections. A trial is even if nobody has
more than twice the mean. Beside it stands what independent draws give (simulated, seeded): the
kernel hashes addresses and ports, so it can be no better. Then the same with a real gateway
(`sluice up`, local engine): each connection is asked something and answered, and each worker says
on its private socket how many it has; of gRPC's the kernel says it. Stops by itself.
"""

import argparse
import asyncio
import json
import random
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import gateway_kit
import onnx_models

from serving.unix_http import ask

_ANY_PORT = ("127.0.0.1", 0)
_SIMULATED = 20_000
_ASK = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_SETTLED_SECONDS = 10.0
_ESTABLISHED = "01"


def listeners(stack: ExitStack, number: int) -> list[socket.socket]:
    """That many sockets on one port."""
    address: Any = _ANY_PORT
    made = []
    for _ in range(number):
        one = stack.enter_context(socket.socket())
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(address)
        address = one.getsockname()
        one.listen(1024)
        one.setblocking(False)
        made.append(one)
    return made


def trial(servers: list[socket.socket], connections: int) -> list[int]:
    """Connect, and count who accepted how many."""
    counts = [0] * len(servers)
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for index, server in enumerate(servers):
            selector.register(server, selectors.EVENT_READ, index)
        for _ in range(connections):
            stack.enter_context(socket.create_connection(servers[0].getsockname()))
        while sum(counts) < connections:
            for key, _ in selector.select():
                accepted, _ = key.fileobj.accept()  # type: ignore[union-attr]
                stack.enter_context(accepted)
                counts[key.data] += 1
    return counts


def is_even(counts: list[int]) -> bool:
    """Whether nobody has more than twice the mean."""
    return max(counts) <= 2 * sum(counts) / len(counts)


def drawn(workers: int, connections: int) -> float:
    """The share of even trials where each connection goes anywhere, independently."""
    chance = random.Random(workers)
    even = 0
    for _ in range(_SIMULATED):
        counts = [0] * workers
        for _ in range(connections):
            counts[chance.randrange(workers)] += 1
        even += is_even(counts)
    return even / _SIMULATED


def kernel_alone(workers: int, connections: int, trials: int) -> list[list[int]]:
    """Who was given how many, by trial."""
    with ExitStack() as stack:
        servers = listeners(stack, workers)
        return [trial(servers, connections) for _ in range(trials)]


def connect(stack: ExitStack, address: str, number: int, words: bytes, *, at_once: bool) -> None:
    """Make that many connections, each of which is answered once."""
    host, _, port = address.rpartition(":")
    clients = [stack.enter_context(socket.socket()) for _ in range(number)]
    for one in clients:
        one.settimeout(0.0 if at_once else _SETTLED_SECONDS)
        one.connect_ex((host, int(port)))
    for one in clients:
        one.settimeout(_SETTLED_SECONDS)
        one.sendall(words)  # waits for the connection to be there
    for one in clients:
        assert one.recv(4096), "a connection was not answered"


async def http_held(run: Path, workers: int) -> list[int]:
    """How many connections each worker says it has."""
    answers = await asyncio.gather(
        *(
            ask(run / f"worker-{number}.sock", "/load", timeout_seconds=_SETTLED_SECONDS)
            for number in range(workers)
        )
    )
    return [int(json.loads(one.body)["connections"]) for one in answers if one is not None]


def held_on(port: int, pids: list[int]) -> list[int]:
    """How many connections to a port each process has, by the kernel's tables (proc_pid_fd(5))."""
    tables = (Path("/proc/net") / name for name in ("tcp", "tcp6"))
    lines = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    links = {
        f"socket:[{line[9]}]"
        for line in lines
        if line[3] == _ESTABLISHED and int(line[1].rpartition(":")[2], 16) == port
    }
    return [sum(link in links for link in open_links(pid)) for pid in pids]


def open_links(pid: int) -> Iterator[str]:
    """What a process's descriptors point at."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            yield str(entry.readlink())


def settled(held: Callable[[], list[int]], connections: int) -> list[int]:
    """What each worker has, as soon as it adds up."""
    until = time.monotonic() + _SETTLED_SECONDS
    while sum(counts := held()) != connections:
        assert time.monotonic() < until, f"{connections} connections, the workers have {counts}"
    return counts


def with_gateway(workers: int, options: argparse.Namespace) -> tuple[list[list[int]], int]:
    """Who had how many, by trial; and how many connections were handed over in all."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "conf"
        # Beyond loopback grpc.aio serves; the clients come over loopback all the same.
        host = "0.0.0.0" if options.grpc == "aio" else "127.0.0.1"  # noqa: S104
        listen = {"http": "127.0.0.1:0", "grpc": f"{host}:0", "admin": "127.0.0.1:0"}
        gateway_kit.write_gateway(directory, listen=listen, engine={"workers": workers})
        gateway_kit.write_model(directory, "m", {"v1": onnx_models.doubler(3)}, {})
        with gateway_kit.running(directory, "--insecure-bind") as gateway:
            address, words = gateway.http, _ASK
            if options.grpc:
                address, words = gateway.grpc.replace(host, "127.0.0.1"), _GREETING
            pids = gateway.pids("worker-")

            def held() -> list[int]:
                if options.grpc:
                    return held_on(int(address.rpartition(":")[2]), pids)
                return asyncio.run(http_held(gateway.data / "run", workers))

            for _ in range(options.trials):
                with ExitStack() as stack:
                    connect(stack, address, options.connections, words, at_once=options.at_once)
                    found.append(settled(held, options.connections))
                settled(held, 0)
            text = gateway.ask(f"{gateway.admin}/metrics", token=gateway.token)[1]
    handed = [
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("sluice_connections_handed_over_total")
    ]
    return found, int(sum(handed))


def summary(counts: list[list[int]]) -> dict[str, Any]:
    """What is said of all trials for one number of workers."""
    return {"even": sum(map(is_even, counts)), "worst": max(map(max, counts))}


def measure(options: argparse.Namespace, workers: int) -> dict[str, Any]:
    """The kernel alone, what can be expected of it, and a gateway."""
    connections, trials = options.connections, options.trials
    result: dict[str, Any] = {
        "workers": workers,
        "trials": trials,
        "mean": connections / workers,
        "drawn": drawn(workers, connections),
        "kernel": summary(kernel_alone(workers, connections, trials)),
    }
    if not options.kernel_only:
        counts, handed = with_gateway(workers, options)
        result["gateway"] = summary(counts) | {"handed_over": handed / (trials * connections)}
    return result


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="4,8,16", help="numbers of workers (4,8,16)")
    parser.add_argument("--connections", type=int, default=32, help="clients' connections (32)")
    parser.add_argument("--trials", type=int, default=100, help="repetitions (100)")
    parser.add_argument("--at-once", action="store_true", help="begin a trial's all together")
    parser.add_argument("--grpc", choices=["native", "aio"], help="gRPC's port, by this server")
    parser.add_argument("--kernel-only", action="store_true", help="start no gateway")
    parser.add_argument("--json", action="store_true", help="print one JSON list and no table")
    options = parser.parse_args()
    found = [measure(options, int(number)) for number in options.workers.split(",")]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"even trials of {options.trials}, and the most that one worker had")
    print(f"{'workers':>7}  {'mean':>5}  {'expected':>8}  {'kernel':>10}  gateway (handed over)")
    for one in found:
        kernel, gateway = one["kernel"], one.get("gateway")
        print(
            f"{one['workers']:7}  {one['mean']:5.1f}  {one['drawn']:8.1%}"
            f"  {kernel['even']:>5} / {kernel['worst']:<2}",
            f" {gateway['even']:>5} / {gateway['worst']:<2} ({gateway['handed_over']:.0%})"
            if gateway
            else "",
        )


if __name__ == "__main__":
    main()
