import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import redis

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "stand_ins"))

from running_engine import BOUND_SECONDS, eventually, replaced, running

from serving.config.keys import STORE_VARIABLE
from serving.engine.directory import short_alias
from serving.engine.embedded_store import EmbeddedStore, find_server
from serving.engine.lifecycle import State
from serving.engine.supervised import SupervisedProcess
from serving.errors import EngineError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The store's directory, under a name short enough for its socket."""
    real = tmp_path / "store"
    real.mkdir()
    alias = short_alias(real)
    if alias != real:
        alias.parent.mkdir(mode=0o700, exist_ok=True)
        alias.symlink_to(real)
    yield alias
    if alias != real:
        alias.unlink()


@asynccontextmanager
async def supervised(folder: Path, *, wait: bool = True) -> AsyncIterator[SupervisedProcess]:
    """A store alone, stopped at the end."""
    spec = EmbeddedStore(folder, find_server()).spec()
    store = SupervisedProcess(spec, lines=lambda _name, _line: None)
    store.start()
    try:
        if wait:
            await eventually(lambda: store.state is State.READY)
        yield store
    finally:
        store.kill()
        await store.stop()


def connected(folder: Path) -> redis.Redis:
    """A client of the store in `folder`."""
    return redis.Redis(unix_socket_path=str(folder / "store.sock"), socket_timeout=20)


async def test_the_store_listens_on_a_private_socket_and_no_port(folder: Path) -> None:
    """Nobody else on the machine or the network can reach it."""
    async with supervised(folder) as store:
        process = psutil.Process(store.report.pid)
        inet = [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]

        assert inet == []
        assert (folder / "store.sock").stat().st_mode & 0o777 == 0o700


async def test_the_store_forgets_nothing_by_configuration(folder: Path) -> None:
    """Append-only, flushed each second, and refusing instead of evicting."""
    async with supervised(folder):
        with connected(folder) as client:
            settings = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "save")

    assert settings == {
        "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction",
        "save": "",
    }  # fmt: skip


async def test_a_killed_store_comes_back_with_what_it_acknowledged(folder: Path) -> None:
    """A kill -9 loses no acknowledged write, and supervision starts it again."""
    async with supervised(folder) as store:
        with connected(folder) as client:
            client.set("kept", "yes")
        old = store.report.pid
        assert old is not None

        os.kill(old, signal.SIGKILL)
        await replaced(store, old)

        with connected(folder) as client:
            assert client.get("kept") == b"yes"


async def test_a_graceful_stop_keeps_the_data(folder: Path) -> None:
    """The next start reads what the last one wrote."""
    async with supervised(folder) as store:
        with connected(folder) as client:
            client.set("kept", "yes")
        await store.stop()
        assert store.report.last_exit == "exit code 0"

    async with supervised(folder):
        with connected(folder) as client:
            assert client.get("kept") == b"yes"


async def written(folder: Path) -> Path:
    """A store that has run and stopped; returns its append-only file."""
    async with supervised(folder) as store:
        with connected(folder) as client:
            for number in range(50):
                client.set(f"key-{number}", "x" * 100)
        await store.stop()
    return next((folder / "appendonlydir").glob("*.incr.aof"))


async def test_an_entry_torn_by_a_power_cut_is_cut_off_and_the_rest_kept(folder: Path) -> None:
    """Half an entry at the end is what a crash leaves; it must not stop a start."""
    file = await written(folder)
    os.truncate(file, file.stat().st_size - 30)

    async with supervised(folder):
        with connected(folder) as client:
            assert client.dbsize() == 49


async def test_a_damaged_file_is_refused_with_what_to_do(folder: Path) -> None:
    """Damage in the middle is nothing to guess about: the engine says how to go on."""
    file = await written(folder)
    content = bytearray(file.read_bytes())
    middle = content.index(b"*3", len(content) // 2)
    content[middle : middle + 40] = b"?" * 40
    file.write_bytes(content)

    async with supervised(folder, wait=False) as store:
        advice = await eventually(lambda: store.explanation)

    assert "append-only file is damaged" in advice
    assert "valkey-check-aof" in advice


async def test_an_engine_over_a_damaged_store_gives_up_with_the_advice(tmp_path: Path) -> None:
    """`until_ready` does not wait for a back-off that cannot help."""
    store = tmp_path / "data" / "store" / "appendonlydir"
    store.mkdir(parents=True)
    (store / "appendonly.aof.manifest").write_text("nonsense\n")

    async with running(tmp_path, wait=False) as engine:
        with pytest.raises(
            EngineError, match=r"store does not start: .*append-only file is damaged"
        ):
            await asyncio.wait_for(engine.until_ready(), BOUND_SECONDS)


async def test_a_living_server_on_the_socket_is_not_robbed(folder: Path) -> None:
    """Starting another one there would cut off everybody who is connected to it."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "store.sock"))
        other.listen()

        async with supervised(folder, wait=False) as store:
            advice = await eventually(lambda: store.explanation)

        assert "another server is listening" in advice
        assert (folder / "store.sock").exists()


async def test_a_socket_left_by_a_killed_server_is_cleared(folder: Path) -> None:
    """A name nobody listens on is no server."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "store.sock"))

    async with supervised(folder) as store:
        assert store.state is State.READY


async def test_an_engine_with_an_external_store_starts_none(tmp_path: Path) -> None:
    """`store: redis://…` is handed to the processes as it is."""
    url = "unix:///nowhere/store.sock"
    async with running(tmp_path, store=url) as engine:
        assert engine.store is None
        assert engine.workers[0].spec.environment == {STORE_VARIABLE: url}
