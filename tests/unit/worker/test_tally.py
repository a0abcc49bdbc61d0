"""Counting many requests at a time: nothing lost, nothing twice, the same sums."""

import asyncio
import itertools
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving import metrics_folder
from serving.metric_families import LATENCY_SECONDS
from serving.metrics import HistogramRow, MetricsFile, Samples, read
from serving.worker.tally import PHASES, STATIONS, Ledger, Phases, Tally

LABELS = {"model": "m", "version": "v1", "role": "production"}
WALL = 1_700_000_000.5


class Counted:
    """A tally on a file of its own, with a wall clock that stands still."""

    def __init__(self, folder: Path) -> None:
        self.metrics = MetricsFile(folder / "worker.metrics")
        self.ledger = Ledger()
        self.phases = Phases(self.metrics, "m", "v1")
        self.tally = Tally(
            metrics=self.metrics,
            ledger=self.ledger,
            phases=self.phases,
            labels=LABELS,
            protocol="http",
            wall=lambda: WALL,
        )

    @property
    def samples(self) -> Samples:
        """What another process would read now."""
        return read(self.metrics.path)

    @property
    def requests(self) -> float:
        """Answers that have been brought to the counters."""
        return self.samples["sluice_requests_total", ("m", "v1", "production", "http", "OK")][0]

    def phase(self, phase: str) -> tuple[float, float]:
        """Requests and seconds of one phase."""
        key = ("m", "v1", phase)
        return (
            self.samples["sluice_inference_phase_total", key][0],
            self.samples["sluice_inference_seconds_total", key][0],
        )


@pytest.fixture
async def counted(tmp_path: Path) -> Counted:
    """A fresh tally."""
    return Counted(tmp_path)


def answer(start: float = 1.0, rows: int = 1) -> tuple[tuple[float, ...], int]:
    """Numbers of one answer: stations of start, 2 start, 4 start …, the whole, its rows."""
    stations = [start * 2**power for power in range(len(STATIONS))]
    return (*stations, sum(stations)), rows


# --- the ledger -----------------------------------------------------------------------------


async def test_what_is_entered_is_settled_once() -> None:
    """However often the books are settled, an entry is settled one time."""
    ledger = Ledger()
    settled: list[int] = []
    for number in range(3):
        ledger.later(lambda number=number: settled.append(number))

    assert settled == []
    ledger.settle()
    ledger.settle()

    assert settled == [0, 1, 2]


async def test_books_settle_themselves() -> None:
    """Nobody has to ask: entries are settled a moment later, each once."""
    ledger = Ledger()
    settled: list[int] = []
    done = asyncio.Event()
    ledger.later(lambda: settled.append(1))
    ledger.later(done.set)

    async with asyncio.timeout(30):
        await done.wait()

    assert settled == [1]


async def test_a_timer_that_comes_late_settles_nothing_twice() -> None:
    """Settled by hand before its time, an entry is not settled again; a new one is, in time."""
    ledger = Ledger()
    settled: list[str] = []
    again = asyncio.Event()
    ledger.later(lambda: settled.append("first"))
    ledger.settle()
    ledger.later(lambda: settled.append("second"))
    ledger.later(again.set)

    async with asyncio.timeout(30):
        await again.wait()

    assert settled == ["first", "second"]


async def test_an_entry_made_while_settling_is_settled_the_next_time() -> None:
    """Settling may cause new entries; they are neither lost nor settled at once."""
    ledger = Ledger()
    settled: list[str] = []
    done = asyncio.Event()

    def first() -> None:
        settled.append("first")
        ledger.later(lambda: (settled.append("second"), done.set()))

    ledger.later(first)
    ledger.settle()
    assert settled == ["first"]
    async with asyncio.timeout(30):
        await done.wait()

    assert settled == ["first", "second"]


async def test_one_timer_serves_all_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer is set per settling, not per entry."""
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    real = loop.call_later
    monkeypatch.setattr(
        loop, "call_later", lambda delay, *rest: (timers.append(delay), real(delay, *rest))[1]
    )
    ledger = Ledger()

    for _ in range(100):
        ledger.later(lambda: None)
    entered = len(timers)
    ledger.settle()
    ledger.later(lambda: None)

    assert entered == 1
    assert len(timers) == 2
    ledger.settle()


# --- the tally ------------------------------------------------------------------------------


async def test_an_answer_is_counted_when_the_books_are_settled(counted: Counted) -> None:
    """Before that the file knows of none, after it of all, and settling again adds none."""
    counted.tally.answered(*answer())
    counted.tally.answered(*answer())
    before = counted.requests

    counted.ledger.settle()
    counted.ledger.settle()

    assert before == 0
    assert counted.requests == 2


async def test_answers_after_a_settling_are_counted_by_the_next(counted: Counted) -> None:
    """A tally that has been settled enters itself again."""
    for number in range(1, 4):
        counted.tally.answered(*answer())
        counted.ledger.settle()

        assert counted.requests == number


async def test_answers_are_counted_without_being_asked(counted: Counted) -> None:
    """A while after the last answer the file is up to date by itself."""
    counted.tally.answered(*answer())

    async with asyncio.timeout(30):
        while counted.requests == 0:
            await asyncio.sleep(0.002)

    assert counted.requests == 1


@pytest.mark.parametrize("count", [1, 2, 50])
async def test_statistics_get_the_phases_of_the_stations(counted: Counted, count: int) -> None:
    """Success is the whole, queue and compute the stations that clients call so; rows add up."""
    for _ in range(count):
        counted.tally.answered(*answer(start=1.0, rows=3))
    counted.ledger.settle()

    phases = {phase: counted.phase(phase) for phase in PHASES}

    assert phases == {
        "success": (count, 63.0 * count),
        "fail": (0, 0),
        "queue": (count, 8.0 * count),
        "compute_input": (count, 4.0 * count),
        "compute_infer": (count, 16.0 * count),
        "compute_output": (count, 32.0 * count),
    }
    assert counted.samples["sluice_inference_rows_total", ("m", "v1")] == [3 * count]
    assert counted.samples["sluice_last_inference_timestamp_seconds", ("m", "v1")] == [WALL]


async def test_a_failure_is_a_failure_and_no_success(counted: Counted) -> None:
    """Its time goes to the failed ones; the last answer stays where it was."""
    counted.phases.failed(0.5)

    assert counted.phase("fail") == (1, 0.5)
    assert counted.phase("success") == (0, 0)
    assert counted.samples["sluice_last_inference_timestamp_seconds", ("m", "v1")] == [0]


async def test_a_prediction_id_ends_in_where_it_was_counted(counted: Counted) -> None:
    """Model, version and role, for whoever looks for a late label's partition."""
    assert counted.tally.suffix == "~m~v1~production"


# --- the same numbers as one by one ---------------------------------------------------------

EDGES = st.sampled_from([0.0, *LATENCY_SECONDS, *(b + 1e-9 for b in LATENCY_SECONDS), 99.0])
SECONDS = EDGES | st.floats(0.0, 100.0, allow_nan=False)
COLUMNS = len(STATIONS) + 1
MATRICES = st.lists(st.lists(SECONDS, min_size=COLUMNS, max_size=COLUMNS), max_size=40)


def alike(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Whether two histograms agree: counts exactly, sums but for the order of addition."""
    return list(ours[:-1]) == list(theirs[:-1]) and math.isclose(
        ours[-1], theirs[-1], rel_tol=1e-9, abs_tol=1e-12
    )


@given(matrix=MATRICES)
@example(matrix=[])
@example(matrix=[list(LATENCY_SECONDS[:COLUMNS])] * 5)
@settings(max_examples=150, deadline=None)
def test_a_matrix_counts_what_its_values_count(matrix: list[list[float]]) -> None:
    """Observed together or one by one, in any number: the same buckets, the same sums."""
    with tempfile.TemporaryDirectory() as folder:
        file = MetricsFile(Path(folder) / "one.metrics")
        family = "sluice_station_duration_seconds"
        together, alone = (
            [
                file.histogram(family, model="m", version=version, station=str(number))
                for number in range(COLUMNS)
            ]
            for version in ("together", "alone")
        )
        HistogramRow(together).observe(np.array(matrix, np.float64).reshape(-1, COLUMNS))
        for one in matrix:
            for histogram, value in zip(alone, one, strict=True):
                histogram.observe(value)

        samples = read(file.path)

    for number in range(COLUMNS):
        key = str(number)
        assert alike(samples[family, ("m", "together", key)], samples[family, ("m", "alone", key)])


@given(parts=st.lists(MATRICES, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_tally_counts_what_one_by_one_counting_would(parts: list[list[list[float]]]) -> None:
    """Settled in any portions, histograms and counters are those of single observations."""

    async def count(folder: str) -> Samples:
        counted = Counted(Path(folder))
        for part in parts:
            for one in part:
                counted.tally.answered(tuple(one), 1)
            counted.ledger.settle()
        return counted.samples

    answers = list(itertools.chain.from_iterable(parts))
    with tempfile.TemporaryDirectory() as folder:
        samples = asyncio.run(count(folder))
        file = MetricsFile(Path(folder) / "alone.metrics")
        singles = [
            *(
                file.histogram(
                    "sluice_station_duration_seconds", model="m", version="v1", station=station
                )
                for station in STATIONS
            ),
            file.histogram("sluice_request_duration_seconds", **LABELS),
        ]
        for one in answers:
            for histogram, value in zip(singles, one, strict=True):
                histogram.observe(value)
        expected = read(file.path)

    assert all(alike(samples[key], expected[key]) for key in expected)
    requests = samples["sluice_requests_total", ("m", "v1", "production", "http", "OK")]
    assert requests == [len(answers)]


def observed_in_small_files(folder: Path, rows: int, files: int) -> Samples:
    """What is read of six histograms, observed together, of which two fit into a file."""
    file = MetricsFile(folder / "small.metrics", capacity=600, files=files)
    family = "sluice_station_duration_seconds"
    histograms = [
        file.histogram(family, model="m", version="v1", station=str(number)) for number in range(6)
    ]

    HistogramRow(histograms).observe(np.full((rows, 6), 0.5))
    return metrics_folder.totals(folder)


@pytest.mark.parametrize("rows", [1, 4, 5, 100])
def test_histograms_that_the_end_of_a_file_parts_are_all_counted(tmp_path: Path, rows: int) -> None:
    """What is observed together need not lie together."""
    samples = observed_in_small_files(tmp_path, rows, files=16)

    assert len(samples) == 6
    for slots in samples.values():
        assert (sum(slots[:-1]), slots[-1]) == (rows, 0.5 * rows)


@pytest.mark.parametrize("rows", [1, 4, 5, 100])
def test_full_files_cost_detail_and_no_request(tmp_path: Path, rows: int) -> None:
    """Histograms that no longer fit count into nowhere; those beside them stay right."""
    samples = observed_in_small_files(tmp_path, rows, files=1)

    assert 0 < len(samples) < 6
    for slots in samples.values():
        assert (sum(slots[:-1]), slots[-1]) == (rows, 0.5 * rows)
