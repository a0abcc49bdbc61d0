"""What joining labels with the log costs, in the process that does it.

    python loadtests/bench_join.py                  # a million rows, labels for 60 % of them
    python loadtests/bench_join.py --rows 100000

Makes a log of 24 hours in a temporary folder: 30 features, a score, one person in ten asked twice;
half of the labels come by id, half by person and time. Prints CPU seconds (the joiner has one
thread) and the largest resident memory.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from serving.control.labels.joiner_orders import Answer, By, Found, LookUp, Order, Report, Told
from serving.performance.slices import Tolerance
from serving.recording.joined import JoinPlan
from serving.recording.label import Label
from serving.recording.labels import LabelStore

START: Final = 1_767_225_600.0
HOURS: Final = 24
FEATURES: Final = 30
BATCH: Final = 4000
DAY: Final = 86400.0


def make_log(log: Path, rows: int, random: np.random.Generator) -> None:
    """One Parquet file an hour."""
    each = rows // HOURS
    for hour in range(HOURS):
        number = np.arange(hour * each, (hour + 1) * each)
        at = START + hour * 3600 + np.arange(each) * (3600 / each)
        score = random.random(each).astype(np.float32)
        table: dict[str, Any] = {
            "prediction_id": [
                f"{int(moment * 1e3):x}~0.{one:x}~demo~v1~production"
                for moment, one in zip(at, number, strict=True)
            ],
            "row": pa.array(np.zeros(each, np.int32)),
            "event_time": pa.array((at * 1e6).astype(np.int64)).cast(pa.timestamp("us", "UTC")),
            "version": ["v1"] * each,
            "role": ["production"] * each,
            "code": ["OK"] * each,
            "sample_weight": np.ones(each),
            "entity.person_id": number % int(rows * 0.9),
            "output.label": (score >= 0.5).astype(np.int64),
            "output.probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(np.stack([1 - score, score], 1).ravel()), 2
            ).cast(pa.list_(pa.float32())),
        }
        for feature in range(FEATURES):
            table[f"feature.f{feature}"] = random.integers(0, 8, each).astype(np.float32)
        name = datetime.fromtimestamp(START + hour * 3600, UTC).strftime("%Y-%m-%dT%H")
        folder = log / "parquet" / "model=demo" / f"hour={name}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table(table), folder / "part.parquet", compression="zstd")


def make_labels(rows: int, random: np.random.Generator) -> list[Label]:
    """Labels an hour later, every second by id."""
    each = rows // HOURS
    labels = []
    for number in np.flatnonzero(random.random(each * HOURS) < 0.6).tolist():
        at = START + number // each * 3600 + number % each * (3600 / each)
        by_id = number % 2 == 0
        labels.append(
            Label(
                model="demo",
                prediction_id=f"{int(at * 1e3):x}~0.{number:x}~demo~v1~production" if by_id else "",
                row=0,
                entity="" if by_id else f"person_id={number % int(rows * 0.9)}",
                time=0 if by_id else int((at + 1) * 1e6),
                tolerance=0.0 if by_id else DAY,
                number=float(random.random() < 0.5),
                text="",
                label_time=int((at + 3600) * 1e6),
                source="bench",
            )
        )
    return labels


def main() -> None:
    """Make, ask, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the log")
    rows = parser.parse_args().rows
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder)
        print("making the log …", file=sys.stderr)
        make_log(log, rows, random)
        labels = make_labels(rows, random)
        store = LabelStore(log / "labels")
        for first in range(0, len(labels), 100_000):
            store.append(labels[first : first + 100_000], actor="bench", received=0)
        store.compact()
        store.close()
        measure(log, labels)


class Joiner:
    """The process that joins, as control starts it."""

    def __init__(self, log: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "serving.control.labels.joiner", str(log), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._about = Path(f"/proc/{self._process.pid}")

    def ask(self, order: Order) -> tuple[Answer, float]:
        """The answer, and the CPU seconds it took."""
        assert self._process.stdin
        assert self._process.stdout
        before = self._cpu_seconds()
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        answer: Answer = msgspec.json.decode(self._process.stdout.readline(), type=Answer)
        return answer, self._cpu_seconds() - before

    def _cpu_seconds(self) -> float:
        fields = (self._about / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mib(self) -> float:
        """Largest resident memory so far."""
        lines = (self._about / "status").read_text().splitlines()
        [peak] = [line for line in lines if line.startswith("VmHWM")]
        return int(peak.split()[1]) / 1024

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def measure(log: Path, labels: list[Label]) -> None:
    """Ask for every report, and look a batch of labels up."""
    joiner = Joiner(log)
    for by in ("version", "slice", "time"):
        told, seconds = joiner.ask(_report(by))
        assert isinstance(told, Told), told
        report = told.report
        print(
            f"report by {by}: {seconds:.2f} CPU s; {report.labelled:,} of {report.rows:,} labelled"
        )
    middle = len(labels) // 2
    order = LookUp(model="demo", entity=["person_id"], labels=labels[middle : middle + BATCH])
    found, seconds = joiner.ask(order)
    assert isinstance(found, Found), found
    print(f"look up {BATCH:,} labels: {seconds:.2f} CPU s; {len(found.made):,} predictions found")
    print(f"largest resident memory: {joiner.peak_mib():,.0f} MiB")
    joiner.close()


def _report(by: By) -> Report:
    now = START + 30 * DAY
    plan = JoinPlan(
        model="demo",
        task="binary",
        decision="label",
        score="probabilities[1]",
        entity=["person_id"],
        slices=["f0", "f1"] if by == "slice" else [],
        horizon=7 * DAY,
        until=now,
        now=now,
    )
    return Report(plan=plan, by=by, bucket=3600.0, min_coverage=0.0, tolerance=Tolerance())


if __name__ == "__main__":
    main()
