"""What a feature fetch costs: three views joined into one row of 96 float32.

    python loadtests/bench_features.py [--seconds 3] [--rounds 3] [--json FILE]

Starts a server of its own on a Unix socket and alternates between Sluice's cache without a near
cache, redis-py's asyncio client doing the same reads and the same decoding, and near-cache hits.
CPU is the client's (this process), microseconds a fetch. Stops by itself.
"""

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import redis.asyncio as redis
import uvloop

from feature_cache import loading
from feature_cache.address import Address
from feature_cache.breaker import Breaker
from feature_cache.cache import FeatureCache
from feature_cache.codec import HEADER_BYTES, Layout
from feature_cache.ingest import Rows
from feature_cache.keys import KeySpace
from feature_cache.loading import LoadReport
from feature_cache.plan import InputSpec, Plan
from feature_cache.store import RemoteStore
from feature_cache.views import FeatureView, Field
from serving.engine.embedded_store import find_server

PEOPLE: Final = 20_000
WIDTH: Final = 32
VIEWS: Final = ("clicks", "orders", "profile")
BATCH: Final = 16_384

Fetch = Callable[[int], Awaitable[Any]]


def views() -> dict[str, FeatureView]:
    """Three views of 32 float32 each, under one key."""
    return {
        name: FeatureView(
            view=name,
            entity={"user_id": "int64"},
            fields={f"{name}_{n:02}": Field(type="float32", default=0.0) for n in range(WIDTH)},
        )
        for name in VIEWS
    }


def compiled(cache: FeatureCache) -> Plan:
    """All 96 fields in one input."""
    columns = tuple((name, f"{name}_{n:02}") for name in VIEWS for n in range(WIDTH))
    return cache.compile({"X": InputSpec(columns, np.dtype("<f4"))})


class _Batch(msgspec.Struct):
    """Rows as `sluice features load` has them once a file is read."""

    first: int
    count: int
    rows: Rows
    rejects: list[Any] = []


async def load(cache: FeatureCache) -> float:
    """Write everybody, the way `sluice features load` does; rows a second."""
    random = np.random.default_rng(7)
    now = int(time.time() * 1e3)

    def batches(name: str) -> Iterator[_Batch]:
        for first in range(0, PEOPLE, BATCH):
            users = list(range(first, min(first + BATCH, PEOPLE)))
            count = len(users)
            columns = {f"{name}_{n:02}": random.random(count, np.float32) for n in range(WIDTH)}
            rows = Rows({"user_id": [*users]}, columns, {}, np.full(count, now))
            yield _Batch(first, count, rows)

    started = time.perf_counter()
    for name in VIEWS:
        report = LoadReport()
        await loading.load(
            cache, name, batches(name), oldest_ms=0, report=report, seen=lambda _batch: None
        )
        assert report.written == PEOPLE
    return len(VIEWS) * PEOPLE / (time.perf_counter() - started)


async def closed_loop(fetch: Fetch, in_flight: int, seconds: float) -> tuple[float, float]:
    """CPU microseconds a fetch, and fetches a second."""
    stop = time.perf_counter() + seconds
    done = 0
    draw = np.random.default_rng(1)

    async def caller() -> None:
        nonlocal done
        users = draw.integers(0, PEOPLE, 4096).tolist()
        at = 0
        while time.perf_counter() < stop:
            await fetch(users[at % 4096])
            at += 1
            done += 1

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return (time.process_time() - cpu) / done * 1e6, done / (time.perf_counter() - wall)


async def open_loop(fetch: Fetch, rate: float, seconds: float) -> tuple[float, float]:
    """p50 and p99 in milliseconds, of Poisson arrivals."""
    gaps = np.random.default_rng(2).exponential(1 / rate, int(rate * seconds))
    users = np.random.default_rng(3).integers(0, PEOPLE, len(gaps)).tolist()
    loop, took, tasks = asyncio.get_running_loop(), [], set()
    due = loop.time()

    async def one(user: int, meant: float) -> None:
        await fetch(user)
        took.append(loop.time() - meant)

    for gap, user in zip(gaps.tolist(), users, strict=True):
        due += gap
        if (wait := due - loop.time()) > 0:
            await asyncio.sleep(wait)
        task = loop.create_task(one(user, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    p50, p99 = np.percentile(took, [50, 99]) * 1e3
    return float(p50), float(p99)


def plain_reader(client: "redis.Redis") -> Fetch:
    """The same reads by redis-py: one MGET, then join and frombuffer."""
    spaces = [KeySpace("default", name, {"user_id": "int64"}) for name in VIEWS]
    layout = Layout([(f"x{n:02}", "float32") for n in range(WIDTH)])
    skip = (HEADER_BYTES + layout.bitmap) // 4

    async def fetch(user: int) -> Any:
        blobs = await client.mget([space.key([user]) for space in spaces])
        table = np.frombuffer(b"".join(blobs), "<f4").reshape(len(VIEWS), -1)
        return table[:, skip:].reshape(1, -1)

    return fetch


async def measure(socket: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Alternate between the three ways."""
    store = RemoteStore(Address.parse(f"unix://{socket}"))
    store.link.start()
    assert await store.link.ready(10)
    client = redis.Redis(
        unix_socket_path=str(socket), max_connections=64, protocol=3, socket_timeout=5
    )
    results: dict[str, Any] = {"cpu_us": {}, "per_second": {}}
    ways: dict[str, tuple[Fetch, int]] = {}

    def reading(near_cache_bytes: int) -> Fetch:
        cache = FeatureCache(
            store, views(), near_cache_bytes=near_cache_bytes, timeout=1, max_local_age=1e9
        )
        cache.reader.breaker = Breaker(threshold=1 << 30)
        plan = compiled(cache)

        async def fetch(user: int) -> Any:
            return await cache.fetch(plan, {"user_id": [user]})

        return fetch

    loader = FeatureCache(store, views(), near_cache_bytes=0)
    results["load_rows_per_second"] = await load(loader)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # as a worker does; it serves both clients
    plain = plain_reader(client)
    fetch = reading(0)
    got, expected = (await fetch(42)).values["X"], await plain(42)
    assert np.array_equal(got, expected), "the two readers disagree"
    ways["sluice, 64 in flight"] = fetch, 64
    ways["sluice, 1 in flight"] = fetch, 1
    ways["redis-py, 64 in flight"] = plain, 64
    for _ in range(arguments.rounds):
        for name, (way, in_flight) in ways.items():
            cpu, rate = await closed_loop(way, in_flight, arguments.seconds)
            results["cpu_us"].setdefault(name, []).append(cpu)
            results["per_second"].setdefault(name, []).append(rate)
    results["open_loop_ms_at_5000"] = await open_loop(fetch, 5000, arguments.seconds)
    # Last, because a store announces to one cache at a time.
    hits = reading(256 << 20)
    for user in range(PEOPLE):
        await hits(user)
    for _ in range(arguments.rounds):
        cpu, rate = await closed_loop(hits, 1, arguments.seconds)
        results["cpu_us"].setdefault("near-cache hit", []).append(cpu)
        results["per_second"].setdefault("near-cache hit", []).append(rate)
    await client.aclose()
    await store.link.close()
    return results


def show(results: dict[str, Any]) -> None:
    """Print what was measured."""
    print(f"{'':26}{'CPU µs/fetch':>22}{'fetches/s':>12}")
    for name, cpus in results["cpu_us"].items():
        middle = statistics.median(cpus)
        spread = f"{middle:.1f} ({min(cpus):.1f}–{max(cpus):.1f})"
        print(f"{name:26}{spread:>22}{statistics.median(results['per_second'][name]):>12,.0f}")
    pairs = zip(
        results["cpu_us"]["redis-py, 64 in flight"],
        results["cpu_us"]["sluice, 64 in flight"],
        strict=True,
    )
    ratios = [theirs / ours for theirs, ours in pairs]
    print(f"redis-py / sluice at 64 in flight: {statistics.median(ratios):.1f} (aim: 8 or more)")
    p50, p99 = results["open_loop_ms_at_5000"]
    print(f"open loop, 5,000 fetches/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms (aim: p50 0.4 ms)")
    print(f"loading: {results['load_rows_per_second']:,.0f} rows/s (aim: 100,000)")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement [3]")
    parser.add_argument("--rounds", type=int, default=3, help="alternations [3]")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "store.sock"
        server = subprocess.Popen(
            [find_server(), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            while not socket.exists():
                time.sleep(0.01)
            results = uvloop.run(measure(socket, arguments))
        finally:
            server.kill()
            server.wait()
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
