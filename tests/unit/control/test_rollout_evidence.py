"""Looks at evidence: read, kept, added, confirmed; and what is refused, removed and put right."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rollout_book_kit import RULES, cells, errors, share, told

from serving.clock import ManualClock
from serving.config.schema import Rule
from serving.control.rollouts import evidence_entries
from serving.control.rollouts.evidence import Evidence
from serving.control.stores.evidence_store import Confirmation, MemoryEvidence
from serving.control.stores.store import MemoryStore
from serving.errors import StoreUnavailable
from serving.rollout.book import Book
from serving.rollout.counts import BATCHES
from serving.rollout.wire import UNFOLDED_BYTES, Arms, Batch, Cells, Unfolded, encode_unfolded


class Setting:
    """A store, a disk, and control that can be started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.clock = ManualClock()
        self.logger = logging.getLogger("evidence-test")
        self.evidence = self.started()

    @property
    def memory(self) -> MemoryEvidence:
        """What is in the store."""
        return self.store.memory_evidence

    def started(self, *, compact_bytes: int = 1 << 20) -> Evidence:
        """Control, after a crash of the one before."""
        self.evidence = Evidence(
            self.store, self.folder, self.clock, self.logger, compact_bytes=compact_bytes
        )
        return self.evidence

    async def open(self) -> Book:
        """Take up the rollout `r`."""
        return await self.evidence.open("m", "r", RULES)

    def write(self, *batches: Batch, worker: str = "a", ended: bool = False) -> None:
        """What a worker does several times a second."""
        self.put(worker, encode_unfolded(told(*batches, worker=worker, ended=ended)))

    def put(self, incarnation: str, content: bytes) -> None:
        """Put anything in a worker's place."""
        self.memory.written.setdefault("r", {})[incarnation] = content

    async def look(self) -> dict[float, tuple[int, int]]:
        """Look once; errors as they are then known."""
        return (await self.evidence.look("r")).events("errors")


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    """With the rollout `r` open."""
    made = Setting(tmp_path)
    await made.open()
    yield made
    await made.evidence.close("r")


async def test_a_look_adds_and_confirms(setting: Setting) -> None:
    """Workers learn what they need not tell again; the counts can be seen in the store."""
    setting.write(errors(1, 7), errors(2, 8))
    setting.write(errors(1, 7, 9), worker="b")

    assert await setting.look() == {0.25: (3, 0)}
    assert setting.memory.folded["r"] == {"a": 2, "b": 1}
    assert b'"events":{"errors":{"0.25":[3,0]}}' in setting.memory.counts["r"]


async def test_what_is_told_again_counts_once(setting: Setting) -> None:
    """As long as the worker has not seen the confirmation."""
    setting.write(errors(1, 7))
    await setting.look()
    setting.write(errors(1, 7), errors(2, 8))

    assert await setting.look() == {0.25: (2, 0)}
    assert setting.evidence.lost("r") == {}


async def test_control_that_starts_again_knows_what_it_had(setting: Setting) -> None:
    """Without asking the store."""
    setting.write(errors(1, 7))
    await setting.look()
    setting.started()

    assert (await setting.open()).events("errors") == {0.25: (1, 0)}


async def test_a_look_without_news_writes_nothing(setting: Setting) -> None:
    """Most looks are."""
    setting.write(errors(1, 7))
    await setting.look()
    before = await setting.store.evidence.book("r")
    await setting.look()

    assert await setting.store.evidence.book("r") == before


async def test_a_store_that_comes_back_empty_gets_the_whole_book(setting: Setting) -> None:
    """And the confirmations; what its workers had not told yet is added."""
    setting.write(errors(1, 7))
    await setting.look()
    setting.store.clear()
    await setting.look()
    assert setting.memory.folded["r"] == {"a": 1}

    setting.write(errors(2, 8))
    assert await setting.look() == {0.25: (2, 0)}
    assert (await setting.store.evidence.book("r")).mark == 2


async def test_a_disk_that_comes_back_empty_goes_on_from_the_store(
    setting: Setting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, and the disk has it then."""
    setting.write(errors(1, 7), errors(2, 8))
    await setting.look()
    setting.write(errors(3, 9))
    await setting.look()
    setting.folder = tmp_path / "new"
    setting.started()
    await setting.open()

    assert await setting.look() == {0.25: (3, 0)}
    assert "going on from frame 2" in caplog.text
    setting.started()
    assert (await setting.open()).folded == {"a": 3}


async def test_a_store_of_somebody_else_is_overwritten(
    setting: Setting, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk has what the store lacks, so it is the one that is kept."""
    setting.write(errors(1, 7))
    await setting.look()
    for confirmation in (1, 2):
        frame = Confirmation(mark=confirmation + 1, folded={}, counts=b"", frame=b"?")
        assert await setting.store.evidence.confirm("r", frame)

    assert await setting.look() == {0.25: (1, 0)}
    assert (await setting.store.evidence.book("r")).mark == 1
    assert "cannot be read" in caplog.text


async def test_two_books_that_both_have_something_leave_the_disks(
    setting: Setting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever runs two gateways on one store hears of it."""
    for number in (1, 2):
        setting.write(errors(number, number))
        await setting.look()
    setting.folder = tmp_path / "other"
    other = setting.started()
    await setting.open()
    setting.store.clear()
    setting.write(errors(1, 9), worker="b")
    await setting.look()
    setting.folder = tmp_path
    setting.started()
    await setting.open()
    setting.store.clear()
    await setting.look()
    setting.evidence = other

    assert await setting.look() == {0.25: (1, 0)}
    assert "two gateways" in caplog.text


class Faltering(MemoryEvidence):
    """Fails a call at the moment when it has, or has not, been carried out."""

    fails = ""
    done = False

    async def confirm(self, rollout: str, confirmation: Confirmation) -> bool:
        """See `EvidenceStore`."""
        if self.fails != "confirm":
            return await super().confirm(rollout, confirmation)
        self.fails = ""
        if self.done:
            await super().confirm(rollout, confirmation)
        raise StoreUnavailable("the store does not answer in time")


@pytest.mark.parametrize("done", [False, True])
async def test_a_confirmation_of_which_nobody_knows_is_made_again(
    tmp_path: Path, done: bool
) -> None:
    """The book has it once, and the store is right after the next look."""
    setting = Setting(tmp_path)
    faltering = Faltering(lambda: None)
    setting.store.evidence = setting.store.memory_evidence = faltering
    setting.started()
    await setting.open()
    setting.write(errors(1, 7))
    faltering.fails, faltering.done = "confirm", done
    with pytest.raises(StoreUnavailable):
        await setting.look()

    assert await setting.look() == {0.25: (1, 0)}
    assert faltering.folded["r"] == {"a": 1}
    await setting.evidence.close("r")


async def test_a_store_that_is_away_changes_nothing(setting: Setting) -> None:
    """The book stays readable."""
    setting.write(errors(1, 7))
    await setting.look()
    setting.store.available = False
    with pytest.raises(StoreUnavailable):
        await setting.look()

    book = setting.evidence.book("r")
    assert book is not None
    assert book.events("errors") == {0.25: (1, 0)}


async def test_a_caller_that_leaves_does_not_stop_a_look(setting: Setting) -> None:
    """Half a look would be one that its successor does not know of."""
    setting.write(errors(1, 7))
    first = asyncio.create_task(setting.look())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first

    assert await setting.look() == {0.25: (1, 0)}
    assert (await setting.store.evidence.book("r")).mark == 1


async def test_a_rollout_is_opened_once(setting: Setting) -> None:
    """However many ask for it at a time: its files have one writer."""
    setting.started()
    first, second = await asyncio.gather(setting.open(), setting.open())

    assert first is second


async def test_looks_that_overlap_are_one(setting: Setting) -> None:
    """So nothing is written twice."""
    setting.write(errors(1, 7))
    await asyncio.gather(*(setting.look() for _ in range(5)))

    assert (await setting.store.evidence.book("r")).mark == 1


async def test_a_long_log_becomes_a_snapshot(setting: Setting, tmp_path: Path) -> None:
    """On disk and in the store, so that neither grows for ever."""
    setting.started(compact_bytes=0)
    await setting.open()
    for number in (1, 2):
        setting.write(errors(number, number))
        await setting.look()
    setting.started()

    assert (tmp_path / "m" / "r" / "evidence.log").stat().st_size == 0
    assert (await setting.store.evidence.book("r")).frames == []
    assert (await setting.open()).events("errors") == {0.25: (2, 0)}


async def test_the_end_leaves_a_snapshot_and_an_empty_store(
    setting: Setting, tmp_path: Path
) -> None:
    """The disk can still be asked."""
    setting.write(errors(1, 7))
    await setting.look()
    await setting.evidence.close("r")
    await setting.evidence.forget("r")

    assert setting.evidence.book("r") is None
    assert setting.memory.written == setting.memory.folded == {}
    assert (tmp_path / "m" / "r" / "evidence.log").stat().st_size == 0
    assert (await setting.open()).events("errors") == {0.25: (1, 0)}


# --- what is refused and removed -----------------------------------------------------------


async def test_a_worker_that_has_ended_is_removed_once_it_is_added(setting: Setting) -> None:
    """Its number stays confirmed, in case somebody speaks for it again."""
    setting.write(errors(1, 7), ended=True)
    setting.write(errors(1, 8), worker="b")
    await setting.look()
    assert list(setting.memory.written["r"]) == ["b"]

    setting.write(errors(1, 7), errors(2, 9), ended=True)
    assert await setting.look() == {0.25: (3, 0)}
    assert list(setting.memory.written["r"]) == ["b"]


async def test_a_worker_that_ended_without_a_word_more_is_removed(setting: Setting) -> None:
    """All it had was added before."""
    setting.write(ended=True)
    await setting.look()

    assert setting.memory.written["r"] == {}


async def test_an_entry_that_nobody_touches_for_a_day_is_removed(setting: Setting) -> None:
    """Its worker is gone; one that still writes stays, also if what it writes is refused."""
    setting.write(errors(1, 7), worker="silent")
    setting.put("broken", b"x")
    await setting.look()
    setting.clock.advance(80_000)
    setting.write(errors(1, 7), worker="late")
    await setting.look()
    setting.clock.advance(80_000)
    setting.write(errors(1, 7), errors(2, 9), worker="late")
    await setting.look()

    assert list(setting.memory.written["r"]) == ["late"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no evidence of this release"),
        (b"\xff" * 100, "no evidence of this release"),
        (encode_unfolded(Unfolded("w", "other", [])), "another incarnation"),
        (encode_unfolded(Unfolded("w", "bad", [errors(1, 1 << 24)])), "no cell 16777216"),
        (bytes(UNFOLDED_BYTES + 1), "more than 8388608"),
    ],
)
async def test_what_cannot_be_evidence_harms_nobody_else(
    setting: Setting, caplog: pytest.LogCaptureFixture, content: bytes, says: str
) -> None:
    """It is named once, and counted."""
    setting.put("bad", content)
    for number in (1, 2):
        setting.write(errors(number, number))
        await setting.look()

    assert (await setting.look()) == {0.25: (2, 0)}
    [line] = [record.getMessage() for record in caplog.records]
    assert says in line
    assert "'bad'" in line
    assert setting.evidence.lost("r") == {"workers_refused": 1}


async def test_a_worker_that_writes_sense_again_is_heard(setting: Setting) -> None:
    """What was refused is not held against it."""
    setting.put("a", b"nonsense")
    await setting.look()
    setting.write(errors(1, 7))

    assert await setting.look() == {0.25: (1, 0)}
    assert setting.evidence.lost("r") == {}


async def test_more_than_one_look_can_read_is_read_by_the_next(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers whose evidence is in the book write less, and so make room."""
    monkeypatch.setattr(evidence_entries, "_LOOK_BYTES", 2000)
    for worker in "abcd":
        events = {"errors": Arms(cells(*range(200)), Cells())}
        batch = errors(1)
        batch.shares = [share(events=events)]
        setting.write(batch, worker=worker)
    for _ in range(4):
        await setting.look()
        for worker in setting.memory.folded["r"]:
            setting.write(worker=worker)

    assert setting.memory.folded["r"] == dict.fromkeys("abcd", 1)


async def test_a_backlog_is_added_over_several_looks(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known so far can be acted on; a worker that ended goes when all of it is added."""
    monkeypatch.setattr(evidence_entries, "_LOOK_BATCHES", 4)
    backlog = [errors(number, number) for number in range(1, 6)]
    setting.write(*backlog, ended=True)
    setting.write(*backlog[:1], worker="b")

    assert await setting.look() == {0.25: (2, 0)}
    assert await setting.look() == {0.25: (4, 0)}
    assert "a" in setting.memory.written["r"]
    assert await setting.look() == {0.25: (5, 0)}
    assert "a" not in setting.memory.written["r"]
    assert setting.evidence.lost("r") == {}


async def test_without_disk_and_store_what_is_gone_is_said(
    setting: Setting, tmp_path: Path
) -> None:
    """Workers go on with the next number, so control sees how many came before."""
    setting.write(errors(1, 7), errors(2, 8))
    await setting.look()
    setting.store.clear()
    setting.folder = tmp_path / "new"
    setting.started()
    await setting.open()
    setting.write(errors(3, 9))

    assert await setting.look() == {0.25: (1, 0)}
    assert setting.evidence.lost("r") == {BATCHES: 2}


async def test_rules_of_a_plan_that_was_changed_hold_from_then_on(setting: Setting) -> None:
    """A rule that came later has its bins too."""
    later = Rule(name="later", metric="prediction_shift")
    book = await setting.evidence.open("m", "r", [*RULES, later])
    both = {"later:0": Arms(cells(7), Cells()), "later:1": Arms(cells(7), Cells())}
    batch = errors(1, 7)
    batch.shares.append(share(events=both))
    setting.write(batch)
    await setting.look()

    assert book.signals("later") == ["later:0"]
