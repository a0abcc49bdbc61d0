"""Servers that answer, but not as one would like; and one that has become another."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import feature_kit
import pytest
import store_kit
import trustme
from fault_proxy import FaultProxy
from feature_kit import Bench

from feature_cache.address import Address
from feature_cache.cache import FeatureCache
from feature_cache.errors import StoreRefused, Unavailable
from feature_cache.status import Status
from feature_cache.store import RemoteStore

DEFAULTS = [[3, 40, 16]]
STORED = [[5, 30, 21]]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def replicable(folder: Path, port: int) -> store_kit.ValkeyServer:
    """A server on a port, whose replicas need not wait for others to join them."""
    options = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
    return store_kit.ValkeyServer(folder, "--port", str(port), *options)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[store_kit.ValkeyServer]:
    """A running server."""
    server = store_kit.ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@asynccontextmanager
async def reading(url: str, *, connected: bool = True) -> AsyncIterator[Bench]:
    """A cache with a short deadline, over a server that may not be there yet."""
    store = RemoteStore(Address.parse(url))
    views = {view.view: view for view in (feature_kit.PROFILE, feature_kit.HOME)}
    wall = feature_kit.Wall()
    cache = FeatureCache(store, views, wall=wall, timeout=0.2)
    store.link.start()
    if connected:
        assert await store.link.ready(10)
    yield Bench(cache, wall)
    await cache.close()
    await store.link.close()


async def until_fetched(bench: Bench, expected: object, seconds: float = 20) -> None:
    """Ask until the answer is this; each answer in between is by policy."""
    give_up = time.monotonic() + seconds
    while True:
        bench.cache.reader.near.flush()
        batch = await bench.fetch(1)
        if batch.values["X"].tolist() == expected:
            return
        assert batch.values["X"].tolist() == DEFAULTS
        assert time.monotonic() < give_up, "it never came to that"
        await asyncio.sleep(0.02)


async def test_a_server_out_of_memory_refuses_writes_and_goes_on_reading(
    valkey: store_kit.ValkeyServer,
) -> None:
    """The error has its name, nothing is half written, and it passes."""
    async with reading(valkey.url) as bench:
        await bench.person(1)
        valkey.client().config_set("maxmemory", "1")

        with pytest.raises(StoreRefused) as refused:
            await bench.person(2)
        assert refused.value.code == "OOM"
        bench.cache.reader.near.flush()
        assert (await bench.fetch(1)).values["X"].tolist() == STORED
        assert (await bench.fetch(2)).values["X"].tolist() == DEFAULTS

        valkey.client().config_set("maxmemory", "0")
        await bench.person(2)
        assert (await bench.fetch(2)).values["X"].tolist() == STORED


async def test_a_replica_refuses_writes_and_is_read(valkey: store_kit.ValkeyServer) -> None:
    """With one address there is nobody else to ask."""
    async with reading(valkey.url) as bench:
        await bench.person(1)
        valkey.client().replicaof("127.0.0.1", free_port())

        with pytest.raises(StoreRefused) as refused:
            await bench.person(1, age=50)
        assert refused.value.code == "READONLY"
        bench.cache.reader.near.flush()
        assert (await bench.fetch(1)).values["X"].tolist() == STORED

        valkey.client().replicaof("NO", "ONE")
        await bench.person(1, age=50, ago=-1)
        await until_fetched_value(bench, 50)


async def until_fetched_value(bench: Bench, age: float) -> None:
    """Ask, near cache and all, until the age is this."""
    give_up = time.monotonic() + 20
    while (await bench.fetch(1)).values["X"][0, 1] != age:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.005)


async def test_failover_to_another_address(tmp_path: Path) -> None:
    """The master is killed, its replica promoted: reading and writing go on there by themselves.

    Nothing is served that the new master does not hold.
    """
    ports = [free_port(), free_port()]
    first, second = (
        replicable(tmp_path / name, port) for name, port in zip("ab", ports, strict=True)
    )
    first.start()
    second.start()
    try:
        second.client().replicaof("127.0.0.1", ports[0])
        async with reading(f"redis://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}") as bench:
            await bench.person(1)
            assert (await bench.fetch(1)).values["X"].tolist() == STORED
            await feature_kit.until(lambda: second.client().dbsize() == 4, 30)

            first.kill()
            second.client().replicaof("NO", "ONE")
            lost = time.monotonic()
            # Somebody writes to the new master before we have found it.
            async with reading(second.url) as other:
                await other.person(1, age=60, ago=-1)
            while (batch := await bench.fetch(1)).values["X"][0, 1] != 60:
                assert batch.values["X"].tolist() in (STORED, DEFAULTS)
                assert time.monotonic() < lost + 20
                await asyncio.sleep(0.01)

            await bench.person(1, age=70, ago=-100)
            await until_fetched_value(bench, 70)
            assert second.client().dbsize() == 4
    finally:
        first.kill()
        second.kill()


async def test_a_master_that_was_demoted_is_left(tmp_path: Path) -> None:
    """Nobody was killed: the heartbeat sees that the role has changed."""
    ports = [free_port(), free_port()]
    first, second = (
        replicable(tmp_path / name, port).start() for name, port in zip("ab", ports, strict=True)
    )
    try:
        second.client().replicaof("127.0.0.1", ports[0])
        async with reading(f"redis://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}") as bench:
            await bench.person(1)
            await feature_kit.until(lambda: second.client().dbsize() == 4, 30)
            second.client().replicaof("NO", "ONE")
            first.client().replicaof("127.0.0.1", ports[1])

            give_up = time.monotonic() + 20
            while True:
                with contextlib.suppress(StoreRefused, Unavailable):
                    if await bench.write("home", 1, {"rooms": 8}, ago=-1):
                        break
                assert time.monotonic() < give_up
                await asyncio.sleep(0.02)
            await feature_kit.until(lambda: bench.cache.store.link.connected)  # type: ignore[attr-defined]
            assert second.client().get(b"fc:{default|person_id=1}:home") is not None
    finally:
        first.kill()
        second.kill()


async def test_a_server_that_is_loading_is_waited_for_and_costs_defaults(tmp_path: Path) -> None:
    """It answers `-LOADING`; nobody waits for it, and it is used as soon as it is ready."""
    server = store_kit.ValkeyServer(tmp_path, "--key-load-delay", "400").start()
    try:
        async with reading(server.url) as bench:
            await bench.person(1)
            with server.client().pipeline(transaction=False) as pipeline:
                for number in range(5000):
                    pipeline.set(f"ballast:{number}", "x" * 100)
                pipeline.execute()
            server.client().save()
        server.kill()
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        await feature_kit.until(server.socket.exists)

        async with reading(server.url, connected=False) as bench:
            first = await bench.fetch(1)
            assert first.values["X"].tolist() == DEFAULTS
            assert (first.status & Status.TIMEOUT).all()
            assert not starting.done(), "it loaded faster than we could ask"
            await until_fetched(bench, STORED, 60)
        await starting
    finally:
        server.kill()


class TlsFront:
    """TLS before a server, with a certificate of this authority."""

    def __init__(self, authority: trustme.CA, server: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._context)
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> asyncio.Server:
        """Listen on a free port."""
        listener = await asyncio.start_server(
            self._accepted, "localhost", 0, family=socket.AF_INET, ssl=self._context
        )
        self.port = listener.sockets[0].getsockname()[1]
        return listener

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, out = await asyncio.open_unix_connection(self._server)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while piece := await source.read(1 << 16):
                    target.write(piece)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, out), copy(upstream, writer))


async def test_tls(valkey: store_kit.ValkeyServer, tmp_path: Path) -> None:
    """Certificates of the authority that the address names are believed, and no others."""
    right, wrong = trustme.CA(), trustme.CA()
    right.cert_pem.write_to_path(tmp_path / "right.pem")
    wrong.cert_pem.write_to_path(tmp_path / "wrong.pem")
    front = TlsFront(right, valkey.socket)
    listener = await front.start()
    try:
        url = f"rediss://localhost:{front.port}?ca={tmp_path}"
        async with reading(f"{url}/right.pem") as bench:
            await bench.person(1)
            bench.cache.reader.near.flush()
            assert (await bench.fetch(1)).values["X"].tolist() == STORED

        for bad in (f"{url}/wrong.pem", f"rediss://127.0.0.1:{front.port}?ca={tmp_path}/right.pem"):
            async with reading(bad, connected=False) as bench:
                store = bench.cache.store
                assert isinstance(store, RemoteStore)
                await feature_kit.until(lambda store=store: store.link.reason)
                assert "certificate verify failed" in store.link.reason
                assert (await bench.fetch(1)).values["X"].tolist() == DEFAULTS
                assert store.link.connects == 0
    finally:
        listener.close()


async def test_nothing_older_than_the_bound_is_served_when_announcements_are_lost(
    valkey: store_kit.ValkeyServer, tmp_path: Path
) -> None:
    """The server is heard no more, the heartbeat has not noticed: `max_local_age` holds."""
    bound = 0.3
    proxy = await FaultProxy(tmp_path / "proxy.sock", valkey.socket).start()
    store = RemoteStore(Address.parse(proxy.url))
    views = {view.view: view for view in (feature_kit.PROFILE, feature_kit.HOME)}
    cache = FeatureCache(store, views, timeout=0.05, max_local_age=bound)
    bench = Bench(cache, feature_kit.Wall())
    store.link.start()
    assert await store.link.ready(10)
    try:
        await bench.person(1)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        assert (await bench.fetch(1)).values["X"].tolist() == STORED
        read_by = loop.time()
        proxy.silent = True
        async with feature_kit.over_server(valkey.url) as other:
            await other.person(1, age=90, ago=-1)

        served: list[tuple[float, float]] = []
        while loop.time() < asked + 3 * bound:
            began = loop.time()
            batch = await bench.fetch(1)
            served.append((began, float(batch.values["X"][0, 1])))
            await asyncio.sleep(0.005)

        assert any(age == 30 for _, age in served), "it was never served from here at all"
        assert all(age in (30, 40) for _, age in served)
        assert all(began <= read_by + bound for began, age in served if age == 30)
        proxy.silent = False
        await until_fetched_value(bench, 90)
    finally:
        await cache.close()
        await store.link.close()
        await proxy.stop()
