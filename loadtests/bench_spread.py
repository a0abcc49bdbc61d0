"""How evenly the kernel spreads connections over workers that share a port (SO_REUSEPORT).

    python loadtests/bench_spread.py                       # 4, 8 and 16 workers, 32 connections
    python loadtests/bench_spread.py --connections 200 --trials 1000 --json

Opens as many bare listeners on one loopback port as there would be workers, connects, and counts
who was given how many; again for each trial, with fresh connections. A trial is even if nobody has
more than twice the mean. Beside it stands what independent draws give (simulated, seeded): the
kernel hashes addresses and ports, so it can be no better. Needs no gateway; stops by itself.
"""

import argparse
import json
import random
import selectors
import socket
from contextlib import ExitStack
from typing import Any

_ANY_PORT = ("127.0.0.1", 0)
_SIMULATED = 20_000


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


def measure(workers: int, connections: int, trials: int) -> dict[str, Any]:
    """All trials for one number of workers."""
    with ExitStack() as stack:
        servers = listeners(stack, workers)
        counts = [trial(servers, connections) for _ in range(trials)]
    return {
        "workers": workers,
        "even": sum(map(is_even, counts)),
        "trials": trials,
        "drawn": drawn(workers, connections),
        "worst": max(map(max, counts)),
        "mean": connections / workers,
    }


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="4,8,16", help="numbers of workers (4,8,16)")
    parser.add_argument("--connections", type=int, default=32, help="clients' connections (32)")
    parser.add_argument("--trials", type=int, default=100, help="repetitions (100)")
    parser.add_argument("--json", action="store_true", help="print one JSON list and no table")
    options = parser.parse_args()
    found = [
        measure(int(number), options.connections, options.trials)
        for number in options.workers.split(",")
    ]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'workers':>7}  {'even trials':>11}  {'expected':>8}  {'mean':>5}  {'most':>4}")
    for one in found:
        print(
            f"{one['workers']:7}  {one['even']:>5} of {one['trials']:<4}  {one['drawn']:8.1%}"
            f"  {one['mean']:5.1f}  {one['worst']:4}"
        )


if __name__ == "__main__":
    main()
