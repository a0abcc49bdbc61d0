"""What the book of a rollout costs control: its loop, its disk, its memory.

    python loadtests/bench_rollout_book.py                       # 4 workers, 1,000 new keys/s
    python loadtests/bench_rollout_book.py --keys 5000 --seconds 60

Workers are played: each closes a batch every 250 ms in which every key is new, with the signals of
a plan with six rules (errors, three bounds of latency, ten bins of scores, feature health, copies
for a tenth of the keys). Control looks every 500 ms, with a real Valkey and a real disk; the clock
is not waited for. Counted is the time of the thread that control's loop runs in, which is what
others have to wait for, and the wall clock of a look. Stops by itself.
"""

import argparse
import asyncio
import logging
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import numpy as np
import redis
from rollout_book_kit import RULES
from store_kit import ValkeyServer

from serving.clock import SystemClock
from serving.control.rollouts.evidence import Evidence
from serving.control.rollouts.evidence_log import RolloutEvidenceLog
from serving.control.stores.redis_store import RedisStore
from serving.rollout.wire import (
    CELLS,
    Arms,
    Batch,
    Cells,
    Share,
    Unfolded,
    encode_unfolded,
    evidence_key,
    folded_key,
)

_BATCHES = 2  # of each worker, since the look before
_SHARE = {"errors": 0.005, "slow:p50": 0.5, "slow:p90": 0.1, "slow:p99": 0.01, "fresh": 0.02}
_RHO = 0.05


class Worker:
    """Counts keys that nobody has seen, and tells of what is not confirmed."""

    def __init__(self, name: str, keys: int) -> None:
        self.name = name
        self._keys = keys
        self._random = np.random.default_rng(random.Random(name).randrange(1 << 30))
        self._batches: list[Batch] = []
        self._number = 0

    def count(self) -> bytes:
        """Close two batches; what stands in the store then."""
        for _ in range(_BATCHES):
            self._number += 1
            met = self._random.integers(0, CELLS, self._keys, dtype=np.uint32)
            events = {signal: self._some(met, share) for signal, share in _SHARE.items()}
            events |= {f"scores:{n}": self._arms(met[n::10]) for n in range(10)}
            split = self._arms(met)
            requests = [len(one.cells) // 4 for one in (split.canary, split.production)]
            share = Share(_RHO, requests, split, events, {})
            copies = Cells(met[: self._keys // 10].tobytes())
            seconds = [[0.01] * requests[0], [0.01] * min(20, requests[1])]
            self._batches.append(Batch(self._number, 0.0, 1, [share], {"agree": copies}, seconds))
        return encode_unfolded(Unfolded(self.name, self.name, self._batches))

    def confirm(self, number: int) -> None:
        """Forget what is in the book."""
        self._batches = [batch for batch in self._batches if batch.number > number]

    def _some(self, met: Any, share: float) -> Arms:
        return self._arms(met[self._random.random(len(met)) < share])

    @staticmethod
    def _arms(met: Any) -> Arms:
        split = met % 1000 < _RHO * 1000
        return Arms(Cells(met[split].tobytes()), Cells(met[~split].tobytes()))


def write(client: "redis.Redis", workers: list[Worker]) -> None:
    """Have each worker hear what is confirmed, and tell more."""
    for worker in workers:
        worker.confirm(int(client.hget(folded_key("r"), worker.name) or 0))  # type: ignore[arg-type]
        client.hset(evidence_key("r"), worker.name, worker.count())


def resident_bytes() -> int:
    """Of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds of a call, and its answer."""
    began = time.perf_counter()
    answer = what()
    return (time.perf_counter() - began) * 1e3, answer


async def measure(folder: Path, server: ValkeyServer, options: argparse.Namespace) -> None:
    """Look as often as in that time, and print what it took."""
    store = RedisStore(server.url)
    evidence = Evidence(store, folder, SystemClock(), logging.getLogger("bench"))
    each = options.keys // options.workers // 4
    workers = [Worker(f"w{number}", each) for number in range(options.workers)]
    loop, wall = [], []
    before = resident_bytes()
    await evidence.open("m", "r", RULES)
    with server.client() as client:
        for _ in range(options.seconds * 2):
            write(client, workers)
            began, used = time.perf_counter(), time.thread_time()
            book = await evidence.look("r")
            wall.append((time.perf_counter() - began) * 1e3)
            loop.append((time.thread_time() - used) * 1e3)
    grown = resident_bytes() - before
    for name, took in (("the loop's thread", loop), ("wall clock", wall)):
        ordered = sorted(took)
        p99 = ordered[int(len(ordered) * 0.99)]
        print(
            f"a look, {name}: median {statistics.median(took):.1f} ms, p99 {p99:.1f} ms, "
            f"max {ordered[-1]:.1f} ms; {sum(took) / options.seconds / 10:.1f} % of the time"
        )
    print(f"keys {sum(book.keys):,}, sets {len(book.sets)}; memory +{grown / 2**20:.0f} MiB")
    path = folder / "m" / "r"
    sizes = {one.name: one.stat().st_size for one in path.iterdir()}
    print(f"files {sizes}")
    disk = RolloutEvidenceLog(path, RULES)
    took, picture = timed(disk.picture)
    print(f"a snapshot of {len(picture) / 2**20:.1f} MiB takes {took:.0f} ms in a thread")
    disk.close()
    took, disk = timed(lambda: RolloutEvidenceLog(path, RULES))
    print(f"reading it all again at a start takes {took:.0f} ms")
    disk.close()
    await store.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--keys", type=int, default=1000, help="new keys a second, of all workers")
    parser.add_argument("--seconds", type=int, default=120, help="of traffic")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ValkeyServer(Path(folder) / "store", "--appendonly", "yes").start()
        try:
            asyncio.run(measure(Path(folder) / "rollouts", server, options))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
