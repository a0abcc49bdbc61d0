"""Files of a prediction log as writers and the keeper leave them, without either."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from serving.recording.layout import LogFolder, SegmentName
from serving.recording.ledger import Ledger
from serving.recording.parquet import convert
from serving.recording.schema import HEAD
from serving.recording.segment import SegmentWriter

HOUR = 3_600
EPOCH = 1_760_000_400
"""Seconds since 1970 of the first row: the beginning of an hour, 2025-10-09T09."""

SCHEMA = pa.schema(
    [
        *HEAD,
        ("entity.person_id", pa.int64()),
        ("feature.AGEP", pa.float32()),
        ("output.label", pa.int64()),
        ("output.probabilities", pa.list_(pa.float32())),
        ("status.person_profile", pa.string()),
        ("age.person_profile", pa.float32()),
    ]
)


def row(number: int, at: float = EPOCH, **more: Any) -> dict[str, Any]:
    """One row of person `number`, made at `at` seconds since 1970."""
    return {
        "prediction_id": f"{int(at * 1000):x}~tag{number}~employment~v1~production",
        "row": 0,
        "rows": 1,
        "request_id": f"request-{number}",
        "trace_id": "",
        "event_time": round(at * 1e6),
        "model": "employment",
        "version": "v1",
        "role": "production",
        "code": "OK",
        "sample_weight": 1.0,
        "total_seconds": 0.002,
        "sent": "",
        "entity.person_id": number,
        "feature.AGEP": float(number),
        "output.label": number % 2,
        "output.probabilities": [0.25, 0.75],
        "status.person_profile": "OK",
    } | more


def batch(rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> pa.RecordBatch:
    """Rows as one batch."""
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def segment(
    log: Path,
    rows: list[dict[str, Any]],
    *,
    writer: str = "worker-0-11-aa",
    model: str = "employment",
    version: str = "v1",
    number: int = 0,
    sealed: bool = True,
    schema: pa.Schema = SCHEMA,
) -> SegmentName:
    """A segment with these rows, two a batch."""
    folder = LogFolder(log).writer("node", writer)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{model}~{version}~{number}.open"
    made = SegmentWriter(path, schema)
    for first in range(0, len(rows), 2):
        made.write(batch(rows[first : first + 2], schema))
    if sealed:
        made.close()
        path = path.rename(path.with_suffix(".arrows"))
    name = SegmentName.parse(path)
    assert name is not None
    return name


def parquet(log: Path, rows: list[dict[str, Any]], **more: Any) -> list[Path]:
    """Parquet files with these rows, as the keeper makes them of a segment."""
    return convert(LogFolder(log), segment(log, rows, **more)).files


def ledger(log: Path, writer: str = "worker-0-11-aa", **counts: int) -> Ledger:
    """The ledger of a writer, which lives until it is closed."""
    folder = LogFolder(log).writer("node", writer)
    folder.mkdir(parents=True, exist_ok=True)
    made = Ledger(folder / "ledger")
    for outcome, rows in counts.items():
        made.add(outcome, rows)
    return made
