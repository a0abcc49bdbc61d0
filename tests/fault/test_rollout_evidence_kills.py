"""Evidence is exact whoever is killed: control at any point, the store with or without its data."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rollout_book_kit import RULES, Sets, cells, counts_of, random_batch, told
from rollout_control_program import Lives
from store_kit import ValkeyServer

from serving.control.rollouts.evidence_log import RolloutEvidenceLog
from serving.rollout.book import Book
from serving.rollout.wire import (
    CELLS,
    Arms,
    Batch,
    Cells,
    encode_unfolded,
    evidence_key,
    folded_key,
)


class Worker:
    """Closes batches, keeps what is not confirmed, and writes it whole, as a real one does.

    Its keys under most signals are its own, so that what a book must say of them does not depend
    on which worker is heard first; those of `shared` are everybody's.
    """

    def __init__(self, name: str, number: int, seed: int) -> None:
        self.name = name
        self._first = number * (CELLS // 8)
        self._rng = random.Random(f"{name} {seed}")
        self.batches: list[Batch] = []
        self._confirmed = 0

    def close_batch(self) -> None:
        """Count a little more."""
        batch = random_batch(len(self.batches) + 1, self._rng)
        for one in batch.shares:
            one.exposed = self._own(one.exposed)
            one.events = {signal: self._own(arms) for signal, arms in one.events.items()}
            everybody = Arms(cells(*(self._rng.randrange(500) for _ in range(5))), Cells())
            one.events["shared"] = everybody
        batch.shadow = {outcome: self._mine(found) for outcome, found in batch.shadow.items()}
        self.batches.append(batch)

    def write(self, server: ValkeyServer) -> None:
        """Hear what is confirmed, and write the rest."""
        with server.client() as client:
            heard = client.hget(folded_key("r"), self.name)
            self._confirmed = max(self._confirmed, int(heard or 0))  # type: ignore[arg-type]
            rest = encode_unfolded(told(*self.batches[self._confirmed :], worker=self.name))
            client.hset(evidence_key("r"), self.name, rest)

    def _own(self, arms: Arms) -> Arms:
        return Arms(self._mine(arms.canary), self._mine(arms.production))

    def _mine(self, found: Cells) -> Cells:
        mine = np.frombuffer(found.cells, "<u4") // 8 + self._first
        return Cells(mine.astype("<u4").tobytes(), found.unkeyed)


@pytest.fixture
def lives() -> Iterator[Lives]:
    """Control, to be killed."""
    program = Lives()
    yield program
    program.close()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A store that has its data again after a restart."""
    server = ValkeyServer(tmp_path / "store", "--appendonly", "yes").start()
    yield server
    server.kill()


def calls_of_a_life(lives: Lives, valkey: ValkeyServer, workers: list[Worker], folder: Path) -> int:
    """How many points there are to be killed at, where there is something new."""
    for worker in workers:
        worker.close_batch()
        worker.write(valkey)
    status, events = lives.live(valkey.url, folder)
    assert status == 0
    return events


def book_on(folder: Path) -> Book:
    """What control's disk has."""
    log = RolloutEvidenceLog(folder / "m" / "r", RULES)
    log.close()
    return log.book


def truth(workers: list[Worker]) -> Counter[tuple[object, ...]]:
    """The true counts, from what each worker has counted."""
    sets = Sets()
    for worker in workers:
        for batch in worker.batches:
            sets.add(worker.name, batch)
    return _summed(+sets.counts)


def _summed(counts: Counter[tuple[object, ...]]) -> Counter[tuple[object, ...]]:
    """With `shared` as one sum: which probability a key has there depends on who is heard first."""
    summed: Counter[tuple[object, ...]] = Counter()
    for name, number in counts.items():
        summed["shared" if "shared" in name else name] += number
    return summed


def counted(book: Book) -> Counter[tuple[object, ...]]:
    """A book's counts, to be compared with `truth`."""
    found = counts_of(book)
    for rho, pair in book.events("shared").items():
        for arm in (0, 1):
            found["events", "shared", rho, arm] = pair[arm]
    return _summed(+found)


def test_control_killed_at_many_points_counts_each_batch_once(
    lives: Lives, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """At 150 calls spread over two looks, in turn, while workers go on; snapshots included."""
    rng = random.Random(6)
    folder = tmp_path / "rollouts"
    workers = [Worker(f"w{number}", number, 1) for number in range(3)]
    events = calls_of_a_life(lives, valkey, workers, folder)
    killed = 0
    for point in range(150):
        for worker in workers:
            worker.close_batch()
            worker.write(valkey)
        status, _ = lives.live(valkey.url, folder, at=1 + point * events // 150 + rng.randrange(9))
        killed += status == -9
    assert killed > 100
    for worker in workers:
        worker.write(valkey)
    status, _ = lives.live(valkey.url, folder)

    assert status == 0
    book = book_on(folder)
    assert book.folded == {worker.name: 151 for worker in workers}
    assert book.lost == {}
    assert counted(book) == truth(workers)


@pytest.mark.parametrize("seed", [1, 2])
def test_store_and_disk_lost_in_turn_lose_and_double_nothing(
    lives: Lives, valkey: ValkeyServer, tmp_path: Path, seed: int
) -> None:
    """Control or the store is killed at any point of a look, then store or disk come back empty.

    Or the store with its data. Between two losses there is one look that ends.
    """
    rng = random.Random(seed)
    folder = tmp_path / "rollouts"
    workers = [Worker(f"w{number}", number, seed) for number in range(3)]
    events = calls_of_a_life(lives, valkey, workers, folder)
    for _ in range(16):
        for victim in ("nobody", rng.choice(("control", "store"))):
            for worker in workers:
                worker.close_batch()
                worker.write(valkey)
            at = 0 if victim == "nobody" else rng.randrange(1, events)
            pid = valkey.pid if victim == "store" else 0
            lives.live(valkey.url, folder, at=at, victim=pid)
        loss = rng.choice(("restart", "empty store", "empty disk"))
        valkey.kill()
        if loss == "empty store":
            shutil.rmtree(tmp_path / "store" / "appendonlydir")
        elif loss == "empty disk":
            shutil.rmtree(folder)
        valkey.start()
    for worker in workers:
        worker.write(valkey)
    lives.live(valkey.url, folder)

    book = book_on(folder)
    assert book.folded == {worker.name: 33 for worker in workers}
    assert book.lost == {}
    assert counted(book) == truth(workers)
