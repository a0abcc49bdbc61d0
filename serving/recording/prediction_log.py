"""From the event loop to the disk: a bounded buffer, one thread, one segment a version.

The event loop only appends to a queue. The thread wakes up every `flush`, takes what is there,
turns it into batches (`columns.py`) and appends them to segments (`segment.py`). Whatever goes
wrong on the disk costs rows, which are counted, and never a request.
"""

import contextlib
import errno
import itertools
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import pyarrow as pa

from serving.config.schema import LogConfig
from serving.metrics import MetricsFile
from serving.recording import record
from serving.recording.columns import digest_with, record_batch
from serving.recording.gathered import Gathered, Walked
from serving.recording.layout import SEAL, LogFolder
from serving.recording.ledger import OUTCOMES, Ledger
from serving.recording.offer import Offer, rows_of
from serving.recording.packing import Packed, Unpacked, packed
from serving.recording.row_plan import RowPlan
from serving.recording.schema import schema_of
from serving.recording.segment import SegmentWriter

__all__ = ["Observer", "PredictionLog"]

_LOG = logging.getLogger("prediction-log")
_CHUNK_ROWS: Final = 1024
"""Most rows turned into one batch: the event loop may have to wait for the GIL meanwhile."""

_ROWS, _CODE = record.ROWS, record.CODE
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}
_FREE_EVERY_SECONDS: Final = 1.0
_WARN_EVERY_SECONDS: Final = 60.0
_CLOSE_SECONDS: Final = 10.0

_YIELDS: Final = {"shadow": 0.5, "production": 0.875}
"""How full the buffer may be for a role to be taken. The rest, canaries and refused requests,
are taken until it is full: they are few, and what evidence is made of."""

Observer = Callable[[Gathered], None]
"""Is shown every request, before any is left out by sampling."""

_Waiting = Offer | Packed


class PredictionLog:
    """Hold at most `config.buffer` bytes of requests until they are written.

    Past a role's share of it (`_YIELDS`) a request is dropped and counted; an answer is never
    delayed. The rows of one request are kept or dropped together.

    Args:
        config: options.
        folder: the log.
        metrics: where rows are counted.
        node, name: of this writer; no other may ever have had both.
        observe: is shown everything, in the writing thread.
        lottery: for sampling.
    """

    on = True

    def __init__(
        self,
        config: LogConfig,
        folder: LogFolder,
        node: str,
        name: str,
        metrics: MetricsFile,
        *,
        observe: Observer | None = None,
        lottery: random.Random | None = None,
    ) -> None:
        self._config = config
        self._log = folder
        self._folder = folder.writer(node, name)
        self.ledger = _ledger(self._folder)
        self._hash: Callable[[Any], str] | None = None
        # A plan goes with its table, and what was worked out for it goes with the plan.
        self._schemas: WeakKeyDictionary[RowPlan, tuple[pa.Schema, bytes]] = WeakKeyDictionary()
        self._observe = observe or _nobody
        self._random = (lottery or random.Random()).random  # noqa: S311 - a lottery, not a secret
        self._waiting: deque[_Waiting] = deque()
        self._slots = self.ledger.slots
        self._bytes_in = 0  # written by the loop only
        self._bytes_out = 0  # written by the thread only
        self._bounds = {role: config.buffer * share for role, share in _YIELDS.items()}
        self._least_bound = min(self._bounds.values())
        self._counters = {
            outcome: metrics.counter("sluice_log_rows_total", outcome=outcome)
            for outcome in OUTCOMES
        }
        self._held = metrics.gauge("sluice_log_held_bytes")
        self._lost = {"buffer_full": 0}  # written by the loop only
        self._open: dict[tuple[str, str, bytes], _Open] = {}
        self._numbers = itertools.count()
        self._stopping = threading.Event()
        self._synced = self._looked = time.monotonic()
        self._room = True
        self._warned: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def offer(self, offer: Offer) -> None:
        """Take one request; never waits and never raises."""
        head = offer.head
        rows: int = head[_ROWS] or 1  # type: ignore[assignment]
        fine = head[_CODE] == "OK"
        self._slots[0] += rows
        held = self._bytes_in - self._bytes_out
        if held >= self._least_bound and (
            held >= self._config.buffer or (fine and held >= self._bounds.get(offer.role, held + 1))
        ):
            self._lost["buffer_full"] += rows
            return
        kept = packed(offer) if rows == 1 and fine else offer
        if kept is offer:
            offer.size = offer.plan.size_of(rows, offer.feed or {}, offer.outputs or ())
        self._bytes_in += kept.size
        self._waiting.append(kept)

    def publish(self) -> None:
        """Bring the counters up to date; called from time to time."""
        counts = self.ledger.counts()
        for outcome, rows in counts.items():
            self._counters[outcome].inc(rows - self._counters[outcome].value)
        self.ledger.told(counts)
        self._held.set(self._bytes_in - self._bytes_out)

    def counts(self) -> dict[str, int]:
        """Rows by outcome so far; what was offered and is not among the others is held."""
        return self.ledger.counts()

    def close(self) -> None:
        """Write what is held, seal the segments and end."""
        self._stopping.set()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            _LOG.error("the disk does not take the last rows; they are lost")
        self.publish()

    def _run(self) -> None:
        while not self._stopping.wait(self._config.flush):
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - nothing may end the thread
                _LOG.exception("the prediction log goes on after an unexpected error")
        self._turn()
        for one in list(self._open.values()):
            self._seal(one)

    def _turn(self) -> None:
        """Write what waits, then do what is due."""
        now = time.monotonic()
        sealing = False
        self._count_lost()
        if now - self._looked >= _FREE_EVERY_SECONDS:
            self._looked = now
            self._room = self._free() >= self._config.min_free
            sealing = (self._folder / SEAL).exists()
        for offers in _chunks(self._waiting, len(self._waiting)):
            for group in _alike(offers):
                self._take(group)
            self._bytes_out += sum([offer.size for offer in offers])
        for one in list(self._open.values()):
            if (
                sealing
                or one.segment.size >= self._config.segment_size
                or now - one.opened >= self._config.segment_age
            ):
                self._seal(one)
        if sealing:
            (self._folder / SEAL).unlink(missing_ok=True)
        if self._config.fsync and now - self._synced >= self._config.fsync:
            self._synced = now
            for one in list(self._open.values()):
                with self._trouble(one, 0):
                    one.segment.sync()

    def _count_lost(self) -> None:
        lost, counted = self._lost["buffer_full"], self.ledger.counts()["buffer_full"]
        if lost > counted:
            self.ledger.add("buffer_full", lost - counted)
            self._warn("buffer_full", "the buffer of the prediction log is full; rows are dropped")

    def _take(self, offers: list[_Waiting]) -> None:
        """Write requests that are alike, those that the lot falls on."""
        plan = offers[0].plan
        rows = sum(rows_of(offers))
        gathered = None
        try:
            gathered = _gathered(offers)
            self._observe(gathered)
        except Exception:  # noqa: BLE001 - drift counts are not worth a row
            _LOG.exception("counting rows of %s for drift failed", plan.model)
        share = plan.shares.get(offers[0].role, 1.0)
        if not offers[0].fine:
            share = 1.0
        if share < 1.0:
            offers = [offer for offer in offers if self._random() < share]
            kept = sum(rows_of(offers))
            self.ledger.add("sampled_out", rows - kept)
            rows = kept
            if not offers:
                return
            gathered = None
        if not self._room:
            self.ledger.add("disk_full", rows)
            self._warn("disk_full", "the disk is nearly full; predictions are not logged")
            return
        schema, shape = self._schema(plan)
        try:
            gathered = gathered or _gathered(offers)
            batch = record_batch(gathered, schema, 1.0 / share, self._digest)
        except Exception:  # noqa: BLE001 - a row that cannot be written must not take others along
            self.ledger.add("unwritable", rows)
            _LOG.exception("rows of %s/%s cannot be logged", plan.model, plan.version)
            return
        one = self._segment(plan, schema, shape, rows)
        if one is not None:
            with self._trouble(one, rows):
                one.segment.write(batch)
                self.ledger.add("logged", rows)

    def _digest(self, value: Any) -> str:
        if self._hash is None:
            self._hash = digest_with(self._log.hash_key())
        return self._hash(value)

    def _schema(self, plan: RowPlan) -> tuple[pa.Schema, bytes]:
        found = self._schemas.get(plan)
        if found is None:
            schema = schema_of(plan)
            found = self._schemas[plan] = schema, schema.serialize().to_pybytes()
        return found

    def _segment(self, plan: RowPlan, schema: pa.Schema, shape: bytes, rows: int) -> "_Open | None":
        key = plan.model, plan.version, shape
        one = self._open.get(key)
        if one is None:
            name = f"{plan.model}~{plan.version}~{next(self._numbers)}.open"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                one = _Open(key, SegmentWriter(self._folder / name, schema), time.monotonic())
            except OSError as error:
                self._failed(error, rows)
                return None
            self._open[key] = one
        return one

    def _seal(self, one: "_Open") -> None:
        """Close a segment and say by its name that it is whole."""
        self._open.pop(one.key, None)
        try:
            one.segment.close()
            one.segment.path.rename(one.segment.path.with_suffix(".arrows"))
        except OSError as error:
            # Its rows are there; whoever reads it sees what is whole.
            self._warn("seal", f"a segment could not be closed: {error}")

    @contextlib.contextmanager
    def _trouble(self, one: "_Open", rows: int) -> Iterator[None]:
        """Count rows that the disk did not take, and go on with a new segment."""
        try:
            yield
        except OSError as error:
            self._failed(error, rows)
            self._seal(one)

    def _failed(self, error: OSError, rows: int) -> None:
        full = error.errno in _FULL
        reason = "disk_full" if full else "disk_error"
        if rows:
            self.ledger.add(reason, rows)
        if full:
            self._room, self._looked = False, time.monotonic()
        self._warn(reason, f"predictions are not logged: {error.strerror or error}")

    def _free(self) -> float:
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return float("inf")  # writing will say what is wrong
        return found.f_bavail * found.f_frsize

    def _warn(self, kind: str, words: str) -> None:
        now = time.monotonic()
        if now - self._warned.get(kind, -_WARN_EVERY_SECONDS) >= _WARN_EVERY_SECONDS:
            self._warned[kind] = now
            _LOG.warning(words)


def _nobody(gathered: Gathered) -> None:
    """Nobody wants to see what is written."""


def _ledger(folder: Path) -> Ledger:
    """The writer's ledger; one in memory alone if the disk refuses to hold it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Ledger(folder / "ledger")
    except OSError as error:
        _LOG.warning("the prediction log cannot keep its counts on the disk: %s", error)
        return Ledger(None)


class _Open:
    """A segment that is being written."""

    __slots__ = ("key", "opened", "segment")

    def __init__(self, key: tuple[str, str, bytes], segment: SegmentWriter, opened: float) -> None:
        self.key = key
        self.segment = segment
        self.opened = opened


def _chunks(waiting: deque[_Waiting], count: int) -> Iterable[list[_Waiting]]:
    """Take `count` requests from the queue, so many at a time that a batch stays small."""
    taken: list[_Waiting] = []
    rows = 0
    for _ in range(count):
        offer = waiting.popleft()
        taken.append(offer)
        rows += offer.head[record.ROWS] or 1  # type: ignore[assignment, operator]
        if rows >= _CHUNK_ROWS:
            yield taken
            taken, rows = [], 0
    if taken:
        yield taken


def _gathered(offers: Sequence[_Waiting]) -> Gathered:
    """Requests that are alike, as columns."""
    if isinstance(offers[0], Packed):
        return Unpacked([one for one in offers if isinstance(one, Packed)])
    return Walked([one for one in offers if isinstance(one, Offer)])


def _alike(offers: list[_Waiting]) -> list[list[_Waiting]]:
    """Group requests that one batch can hold: plan, what they had and were answered, role."""
    groups: dict[tuple[object, ...], list[_Waiting]] = {}
    first = offers[0]
    if isinstance(first, Packed):  # mostly all are, of one kind: seen by whole lists
        packings = [offer.packing for offer in offers if isinstance(offer, Packed)]
        roles = [offer.head[record.ROLE] for offer in offers]
        if packings.count(first.packing) == len(offers) == roles.count(first.role):
            return [offers]
    for offer in offers:
        if isinstance(offer, Packed):
            key: tuple[object, ...] = (id(offer.packing), offer.role)
        else:
            key = (
                id(offer.plan),
                offer.role,
                offer.fine,
                offer.feed is None,
                None if offer.outputs is None else offer.names,
            )
        groups.setdefault(key, []).append(offer)
    return list(groups.values())
