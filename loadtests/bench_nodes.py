"""How soon one node knows what another one does, and what knowing costs when nothing happens.

    python loadtests/bench_nodes.py                        # 30 versions each way
    python loadtests/bench_nodes.py --trials 100 --json

Control's part (`serving.control.fleet.director`) and another node's
(`serving.engine.node_follower`) on two data directories, in this process, with a real store between
them. A version is quarantined on one side; the time until the other side's disk says so is
measured. Stops by itself.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis

from serving.clock import SystemClock
from serving.config.keys import NODE_VARIABLE
from serving.control.fleet.director import Director
from serving.control.fleet.rolls import Rolls
from serving.control.stores.redis_store import RedisStore
from serving.engine.embedded_store import find_server
from serving.engine.node_follower import NodeFollower
from serving.quarantine import register
from serving.quarantine.decision import Crash, Suspect
from serving.tasks import end

_ENGINE = "bench@here"
_QUIET_SECONDS = 10.0
_POLL_SECONDS = 0.002


def store(stack: ExitStack, folder: Path) -> str:
    """Run one; its address."""
    socket = folder / "store.sock"
    command = [find_server(), "--port", "0", "--unixsocket", str(socket), "--save", ""]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    stack.callback(server.wait)
    stack.callback(server.kill)
    while not socket.exists():
        time.sleep(_POLL_SECONDS)
    return f"unix://{socket}"


async def quarantine(here: Path, there: Path, version: str, node: str) -> float:
    """Crash a version twice here; the seconds until it is in quarantine there."""
    now = time.time()
    for at in (now, now + 0.1):
        suspects = (Suspect("m", version, "0" * 64),)
        crash = Crash(at=at, worker="worker-0", signal="SIGFPE", suspects=suspects, node=node)
        register.record(here, crash)
    began = time.monotonic()
    while all(  # noqa: ASYNC110 - what is waited for is a file
        one.version != version for one in register.load(there).quarantined
    ):
        await asyncio.sleep(_POLL_SECONDS)
    return time.monotonic() - began


async def idle(url: str) -> dict[str, float]:
    """CPU and commands a second while nothing happens."""

    def commands() -> int:
        with redis.Redis.from_url(url) as client:
            return int(client.info("stats")["total_commands_processed"])

    before, began = commands(), time.process_time()
    await asyncio.sleep(_QUIET_SECONDS)
    used = time.process_time() - began
    return {
        "cpu_ms": round(1e3 * used / _QUIET_SECONDS, 1),
        "commands": round((commands() - before) / _QUIET_SECONDS, 1),
    }


async def measure(folder: Path, url: str, trials: int) -> dict[str, Any]:
    """Both ways, then the quiet."""
    control, node = folder / "control", folder / "node"
    for data in (control, node):
        (data / "run").mkdir(parents=True)
    clock, log, told = SystemClock(), logging.getLogger("bench"), RedisStore(url)
    rolls = Rolls(control, _ENGINE, 0, log)
    follower = NodeFollower(node, _ENGINE, url, clock=clock, say=log.warning)
    await follower.catch_up()
    director = Director(told, control, rolls, clock=clock, log=log)
    tasks = [asyncio.create_task(one) for one in (director.keep(), follower.run())]
    seconds: dict[str, list[float]] = {"to the node": [], "to control": []}
    try:
        for number in range(trials):
            for name, here, there in (
                ("to the node", control, node),
                ("to control", node, control),
            ):
                # At any moment of either side's turn.
                await asyncio.sleep(random.random())
                version = f"v{number}-{here.name}"
                seconds[name].append(await quarantine(here, there, version, here.name))
        quiet = await idle(url)
    finally:
        await end(*tasks)
        await told.close()
    return {
        name: {
            "median_ms": round(1e3 * statistics.median(all_), 1),
            "most_ms": round(1e3 * max(all_)),
        }
        for name, all_ in seconds.items()
    } | {"idle_per_second": quiet}


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="for machines")
    arguments = parser.parse_args(argv)
    os.environ[NODE_VARIABLE] = "node"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = asyncio.run(measure(folder, store(stack, folder), arguments.trials))
    if arguments.json:
        print(json.dumps(found))
        return
    for name, numbers in found.items():
        print(f"{name:16}", ", ".join(f"{key} {value}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
