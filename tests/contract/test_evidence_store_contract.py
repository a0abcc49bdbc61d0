"""Evidence of rollouts in the store: what every `EvidenceStore` must do."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from store_kit import ValkeyServer

from serving.control.stores.evidence_store import Confirmation, StoredBook
from serving.control.stores.redis_store import RedisStore
from serving.control.stores.store import MemoryStore, Store
from serving.rollout.wire import evidence_key, folded_key


class Workers:
    """Writes and reads as workers do."""

    def __init__(self, store: MemoryStore | None, server: ValkeyServer | None) -> None:
        self._store = store
        self._server = server

    def write(self, incarnation: str, content: bytes, rollout: str = "r") -> None:
        """Put a worker's evidence there, whole."""
        if self._store is not None:
            self._store.memory_evidence.written.setdefault(rollout, {})[incarnation] = content
        elif self._server is not None:
            with self._server.client() as client:
                client.hset(evidence_key(rollout), incarnation, content)

    def confirmed(self, rollout: str = "r") -> dict[str, int]:
        """What workers need not tell again."""
        if self._store is not None:
            return self._store.memory_evidence.folded.get(rollout, {})
        assert self._server
        with self._server.client() as client:
            found = client.hgetall(folded_key(rollout))
        return {name.decode(): int(number) for name, number in found.items()}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A running server."""
    server = ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "redis"])
async def both(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Store, Workers]]:
    """Each sibling in turn, and its workers."""
    if request.param == "memory":
        memory = MemoryStore()
        yield memory, Workers(memory, None)
        return
    server = request.getfixturevalue("valkey")
    store = RedisStore(server.url)
    yield store, Workers(None, server)
    await store.close()


def frame(mark: int, content: bytes, *gone: str) -> Confirmation:
    """One more frame, with a batch of `a`."""
    return Confirmation(mark=mark, folded={"a": mark}, counts=b"{}", frame=content, gone=gone)


async def test_nobody_has_written_at_first(both: tuple[Store, Workers]) -> None:
    """There is no book, and forgetting it is harmless."""
    evidence = both[0].evidence
    await evidence.forget("r")
    index = await evidence.index("r")

    assert (index.sizes, index.mark) == ({}, 0)
    assert await evidence.book("r") == StoredBook(b"", [], 0)
    assert await evidence.unfolded("r", ["a"]) == {}
    assert await evidence.unfolded("r", []) == {}


async def test_what_workers_wrote_is_read(both: tuple[Store, Workers]) -> None:
    """Sizes first, then only what is asked for, of this rollout only."""
    store, workers = both
    workers.write("a", b"\xff" * 3)
    workers.write("b", b"1")
    workers.write("c", b"", rollout="other")

    assert (await store.evidence.index("r")).sizes == {"a": 3, "b": 1}
    assert await store.evidence.unfolded("r", ["a", "gone"]) == {"a": b"\xff" * 3}


async def test_frames_follow_each_other(both: tuple[Store, Workers]) -> None:
    """The book has them in order, and the workers the latest numbers."""
    store, workers = both
    assert await store.evidence.confirm("r", frame(1, b"one"))
    assert await store.evidence.confirm("r", frame(2, b"two"))

    assert await store.evidence.book("r") == StoredBook(b"", [b"one", b"two"], 2)
    assert (await store.evidence.index("r")).mark == 2
    assert workers.confirmed() == {"a": 2}


@pytest.mark.parametrize("mark", [1, 3])
async def test_a_frame_after_another_one_changes_nothing(
    both: tuple[Store, Workers], mark: int
) -> None:
    """A store that was emptied or put back meanwhile needs the whole book, and says so."""
    store, workers = both
    workers.write("a", b"1")
    await store.evidence.confirm("r", frame(1, b"one"))

    assert not await store.evidence.confirm("r", frame(mark, b"other", "a"))
    assert await store.evidence.book("r") == StoredBook(b"", [b"one"], 1)
    assert (await store.evidence.index("r")).sizes == {"a": 1}


async def test_a_picture_replaces_everything(both: tuple[Store, Workers]) -> None:
    """Frames, mark and confirmations, whatever they were; frames go on after it."""
    store, workers = both
    await store.evidence.confirm("r", frame(1, b"one"))
    whole = Confirmation(mark=7, folded={"b": 4}, counts=b"{}", picture=b"book")
    assert await store.evidence.confirm("r", whole)
    assert workers.confirmed() == {"b": 4}
    assert await store.evidence.confirm("r", frame(8, b"eight"))

    assert await store.evidence.book("r") == StoredBook(b"book", [b"eight"], 8)
    assert workers.confirmed() == {"a": 8, "b": 4}


async def test_workers_that_are_gone_are_removed(both: tuple[Store, Workers]) -> None:
    """Also where nothing else is new; their confirmations stay."""
    store, workers = both
    for incarnation in "abc":
        workers.write(incarnation, b"1")
    await store.evidence.confirm("r", frame(1, b"one", "a"))
    await store.evidence.confirm("r", Confirmation(mark=1, folded={}, counts=b"{}", gone=("b",)))

    assert (await store.evidence.index("r")).sizes == {"c": 1}
    assert workers.confirmed() == {"a": 1}


async def test_a_rollout_that_is_forgotten_leaves_nothing(both: tuple[Store, Workers]) -> None:
    """Others stay."""
    store, workers = both
    for rollout in ("r", "other"):
        workers.write("a", b"1", rollout)
        await store.evidence.confirm(rollout, frame(1, b"one"))
    await store.evidence.forget("r")

    assert await store.evidence.book("r") == StoredBook(b"", [], 0)
    assert workers.confirmed() == {}
    assert (await store.evidence.index("other")).sizes == {"a": 1}


async def test_nothing_is_left_behind_in_a_real_store(valkey: ValkeyServer) -> None:
    """A store that never evicts must not collect what rollouts leave."""
    store = RedisStore(valkey.url)
    whole = Confirmation(mark=1, folded={"b": 4}, counts=b"{}", picture=b"book")
    await store.evidence.confirm("r", whole)
    await store.evidence.confirm("r", frame(2, b"two"))
    with valkey.client() as client:
        client.hset(evidence_key("r"), "a", b"1")
        assert client.get("sluice:rollout:r:book") == b"{}"
        await store.evidence.forget("r")

        assert client.dbsize() == 0
    await store.close()


async def test_a_name_that_no_worker_has_is_not_read(valkey: ValkeyServer) -> None:
    """The store is not only ours."""
    store = RedisStore(valkey.url)
    with valkey.client() as client:
        client.hset(evidence_key("r"), b"\xff\xfe", b"1")
        client.hset(evidence_key("r"), "a", b"1")

    assert (await store.evidence.index("r")).sizes == {"a": 1}
    await store.close()
