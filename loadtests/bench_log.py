"""What the prediction log costs, station by station; CPU time of the thread that does it.

    python loadtests/bench_log.py                     # all of it, about two minutes
    python loadtests/bench_log.py --only rows
    python loadtests/bench_log.py --only report --rows 10000000

`rows`: handing a request over in the event loop (with and without building the offer), turning
rows of 30 features into batches, writing them, counting them for drift. `report`: a day of rows
as Parquet, counted again and judged, in a process of its own; its peak memory is what the
kernel says of that process.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_cache.assembly import Batch
from serving.config.frozen_bins import Reference
from serving.config.schema import LogConfig, ModelLog, MonitoringConfig, PredictionConfig
from serving.config.units import ByteSize, Seconds
from serving.drift.counting import Counting
from serving.drift.freezing import freeze
from serving.drift.recounting import Recount
from serving.drift.standing import standing
from serving.drift.windows import stretches
from serving.metrics import MetricsFile
from serving.recording.columns import digest_with, record_batch
from serving.recording.layout import LogFolder
from serving.recording.offer import Offer
from serving.recording.packing import Packed, Unpacked, packed
from serving.recording.prediction_log import PredictionLog
from serving.recording.row_plan import RowPlan, plan_rows
from serving.recording.schema import schema_of
from serving.recording.segment import SegmentWriter
from serving.types import Tensor, TensorMetadata

FEATURES = [f"f{number}" for number in range(30)]
DAY_SECONDS = 86400
NOON = 1_790_000_000 - 1_790_000_000 % DAY_SECONDS
SIZES = (100, 256, 1024)


def plan() -> RowPlan:
    """A version of 30 features from two views, as the demo's but wider."""
    return plan_rows(
        model="bench",
        version="v1",
        digest="d" * 64,
        log=ModelLog(),
        batchable=True,
        entity={"id": "INT64"},
        inputs=[TensorMetadata("X", "FP32", (-1, len(FEATURES)))],
        features={"X": FEATURES},
        outputs=[
            TensorMetadata("label", "INT64", (-1,)),
            TensorMetadata("probabilities", "FP32", (-1, 2)),
        ],
        views=["a", "b"],
        view_of={name: "ab"[number % 2] for number, name in enumerate(FEATURES)},
    )


def offers(plan: RowPlan, count: int) -> list[Offer]:
    """Requests of one row with features from the store, each with arrays of its own."""
    draw = np.random.default_rng(1)
    made = []
    for number in range(count):
        table = draw.standard_normal((1, len(FEATURES)), np.float32)
        share = draw.random(1, np.float32)
        head = (
            NOON + number / 1e3, f"{number:x}~0.bench.{number:x}~bench~v1~production",
            f"request-{number}", "bench", "v1", "production", "assigned", 1.0, 3, "OK",
            1, 1, 0.001, 0.0001, 0.0002,
        )  # fmt: skip
        made.append(
            Offer(
                plan,
                head,
                (1e-5,) * 7,
                None,
                [Tensor("id", "INT64", np.array([number]))],
                {"X": table},
                Batch({"X": table}, [[1], [3]], [[1500], [2500]], ("a", "b")),
                ("label", "probabilities"),
                [(share > 0.5).astype(np.int64), np.stack([1 - share, share], axis=1)],
            )
        )
    return made


def reference() -> Reference:
    """Twenty numeric columns, ten categories and a score."""
    draw = np.random.default_rng(2)
    return Reference(
        model="bench",
        rows=40_000,
        created="2026-01-01T00:00:00Z",
        source="standard normal and uniform numbers",
        columns=freeze(columns(draw, 40_000)),
    )


def columns(draw: np.random.Generator, rows: int) -> dict[str, Any]:
    """Values of the columns that are watched."""
    found: dict[str, Any] = {
        name: draw.standard_normal(rows, np.float32)
        if number < 20
        else draw.integers(0, 12, rows).astype(np.float32)
        for number, name in enumerate(FEATURES)
    }
    return found | {"probabilities[1]": draw.random(rows, np.float32)}


def per_item(work: Callable[[], Any], items: int, rounds: int) -> float:
    """Microseconds of CPU time each; the least of some rounds, which noise only adds to."""
    times = []
    for _ in range(rounds):
        begun = time.thread_time()
        work()
        times.append((time.thread_time() - begun) / items * 1e6)
    return min(times)


def rows(folder: Path, rounds: int) -> dict[str, float]:
    """Costs of a request and of a row, in µs."""
    its = plan()
    made = offers(its, 4096)
    return loop_costs(folder, its, made, rounds) | writer_costs(folder, its, made, rounds)


def loop_costs(folder: Path, its: RowPlan, made: list[Offer], rounds: int) -> dict[str, float]:
    """What a request costs the event loop."""
    found: dict[str, float] = {}
    config = LogConfig(flush=Seconds(3600.0), buffer=ByteSize(1 << 40))
    log = PredictionLog(config, LogFolder(folder / "log"), "n", "w", MetricsFile(folder / "m"))

    def hand_over() -> None:
        for one in made:
            log.offer(one)

    def make_and_hand_over() -> None:
        for one in made:
            log.offer(
                Offer(
                    its, one.head, one.seconds, None, one.inputs, one.feed, one.batch, one.names,
                    one.outputs,
                )
            )  # fmt: skip

    found["event loop: offer"] = per_item(hand_over, len(made), rounds)
    found["event loop: make the offer, offer"] = per_item(make_and_hand_over, len(made), rounds)
    log._waiting.clear()  # noqa: SLF001 - nothing of it is to be written
    log.close()
    return found


def writer_costs(folder: Path, its: RowPlan, made: list[Offer], rounds: int) -> dict[str, float]:
    """What a row costs the writing thread, by how many are written at once."""
    found: dict[str, float] = {}
    schema, digest = schema_of(its), digest_with(b"k" * 32)
    counting = Counting(reference(), its)
    kept = [one for one in map(packed, made) if isinstance(one, Packed)]
    assert len(kept) == len(made)
    for size in SIZES:
        parts = [kept[at : at + size] for at in range(0, len(kept) - size + 1, size)]
        count = sum(map(len, parts))
        writer = SegmentWriter(folder / f"segment-{size}", schema)
        batches = [record_batch(Unpacked(part), schema, 1.0, digest) for part in parts]

        def turn(parts: list[list[Packed]] = parts) -> None:
            for part in parts:
                record_batch(Unpacked(part), schema, 1.0, digest)

        def write(batches: list[pa.RecordBatch] = batches, writer: SegmentWriter = writer) -> None:
            for batch in batches:
                writer.write(batch)

        def tally(parts: list[list[Packed]] = parts) -> None:
            for part in parts:
                counting.count(Unpacked(part))

        found[f"writer, {size} rows at once: to columns"] = per_item(turn, count, rounds)
        found[f"writer, {size} rows at once: to the segment"] = per_item(write, count, rounds)
        found[f"writer, {size} rows at once: drift counts"] = per_item(tally, count, rounds)
        found[f"segment, {size} rows at once: bytes a row"] = writer.size / writer.rows
        writer.close()
    return found


def write_day(folder: Path, count: int, say: Callable[[str], None]) -> None:
    """A day of rows, one file an hour, as the keeper leaves them."""
    draw = np.random.default_rng(3)
    hourly = count // 24
    for hour in range(24):
        values = columns(draw, hourly)
        score = values.pop("probabilities[1]")
        times = np.sort(draw.integers(hour * 3_600_000_000, (hour + 1) * 3_600_000_000, hourly))
        pairs = np.stack([1 - score, score], axis=1).reshape(-1)
        offsets = pa.array(np.arange(0, 2 * hourly + 1, 2, dtype=np.int32))
        table = pa.table(
            {
                "event_time": pa.array(times + NOON * 1_000_000).cast(pa.timestamp("us", "UTC")),
                "version": pa.repeat("v1", hourly),
                "role": pa.repeat("production", hourly),
                "code": pa.repeat("OK", hourly),
                **{f"feature.{name}": column for name, column in values.items()},
                "output.probabilities": pa.ListArray.from_arrays(offsets, pa.array(pairs)),
                "status.a": pa.repeat("OK", hourly),
                "status.b": pa.repeat("CACHED|OK", hourly),
                "age.a": pa.repeat(1.5, hourly).cast(pa.float32()),
                "age.b": pa.repeat(2.5, hourly).cast(pa.float32()),
            }
        )
        pq.write_table(table, folder / f"{hour:02}.parquet", compression="zstd")
        say(f"  wrote hour {hour + 1} of 24")


def report_on(folder: Path) -> dict[str, Any]:
    """Count a day again and judge it; seconds, CPU seconds and peak memory of this process."""
    pa.set_cpu_count(2)
    begun, cpu = time.perf_counter(), time.process_time()
    frozen = reference()
    view_of = {name: "ab"[number % 2] for number, name in enumerate(FEATURES)}
    recount = Recount(frozen, view_of, DAY_SECONDS / 30)
    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            known = set(file.schema_arrow.names)
            names = [name for name in recount.needs if name in known]
            for batch in file.iter_batches(131_072, columns=names):
                recount.add(pa.Table.from_batches([batch]))
    parts = recount.parts()
    [key] = {key for part in parts for key in part.counts}
    monitoring = MonitoringConfig(
        reference="x", prediction=PredictionConfig(score="probabilities[1]")
    )
    one = standing(
        model="bench",
        version="v1",
        role="production",
        reference=frozen,
        monitoring=monitoring,
        found=stretches(parts, key, DAY_SECONDS),
        at=time.time(),
    )
    return {
        "rows": one.drift.rows,
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "words": one.drift.words,
    }


def report(folder: Path, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Make a day, then report on it in a process of its own."""
    write_day(folder, count, say)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(report_on, (folder,))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["rows", "report"], help="one part of it")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the day (10 million)")
    parser.add_argument("--rounds", type=int, default=9, help="repetitions; the least counts (9)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    def say(text: str) -> None:
        if not options.json:
            print(text, file=sys.stderr if text.startswith("  ") else sys.stdout, flush=True)

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as name:
        if options.only != "report":
            found["rows"] = rows(Path(name), options.rounds)
            for what, cost in found["rows"].items():
                say(f"{what:<50} {cost:8.2f}" + ("" if "bytes" in what else " µs"))
        if options.only != "rows":
            found["report"] = report(Path(name), options.rows, say)
            say(
                "report of {rows:,} rows: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU, "
                "{peak_mib:.0f} MiB; {words}".format(**found["report"])
            )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
