"""Offers for the prediction log as a pipeline would make them, and logs that need no gateway."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feature_cache.assembly import Batch
from serving.config.schema import LogConfig, ModelLog
from serving.config.units import ByteSize, Seconds
from serving.metrics import MetricsFile
from serving.recording.layout import LogFolder
from serving.recording.offer import Offer
from serving.recording.prediction_log import PredictionLog
from serving.recording.row_plan import RowPlan, plan_rows
from serving.recording.segment import read_segment
from serving.types import Tensor, TensorMetadata

NOON = 1_790_000_000.0
BOUND_SECONDS = 20.0


def plan(log: ModelLog | None = None, *, model: str = "m", version: str = "v1") -> RowPlan:
    """A model of two features, with a key, a label and two probabilities."""
    return plan_rows(
        model=model,
        version=version,
        digest="d" * 64,
        log=log or ModelLog(),
        batchable=True,
        entity={"person_id": "INT64"},
        inputs=[TensorMetadata("X", "FP32", (-1, 2))],
        features={"X": ["AGEP", "SEX"]},
        outputs=[
            TensorMetadata("label", "INT64", (-1,)),
            TensorMetadata("probabilities", "FP32", (-1, 2)),
        ],
        views=["person"],
    )


def head(
    plan: RowPlan,
    number: int,
    *,
    rows: int = 1,
    role: str = "production",
    code: str = "OK",
    at: float = NOON,
) -> Any:
    """The fields of a record."""
    identity = f"{int(at * 1e3):x}~0.{number:x}~{plan.model}~{plan.version}~{role}"
    return (
        at + number / 1e3,
        identity if code == "OK" else "",
        f"request-{number}",
        plan.model,
        plan.version,
        role,
        "assigned",
        0.25,
        7,
        code,
        rows,
        rows,
        0.004,
        0.001,
        0.002,
    )


def answer(plan: RowPlan, number: int, *, rows: int = 1, **more: Any) -> Offer:
    """An answered request for persons `number` and up, with features from the store."""
    persons = np.arange(number, number + rows)
    table = np.stack([persons % 90, persons % 2 + 1], axis=1).astype(np.float32)
    share = (persons % 10 / 10).astype(np.float32)
    return Offer(
        plan,
        head(plan, number, rows=rows, **more),
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 2.1),
        "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
        [Tensor("person_id", "INT64", persons)],
        {"X": table},
        Batch({"X": table}, [[1] * rows], [[1500] * rows], ("person",)),
        ("label", "probabilities"),
        [(share > 0.5).astype(np.int64), np.stack([1 - share, share], axis=1)],
    )


def refusal(plan: RowPlan, number: int, code: str = "DEADLINE_EXCEEDED") -> Offer:
    """A request that was refused before it was joined."""
    return Offer(
        plan,
        head(plan, number, rows=0, code=code),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05),
        None,
        [Tensor("person_id", "INT64", np.array([number]))],
        None,
        None,
        (),
        None,
    )


def log_of(folder: Path, name: str = "w", **options: Any) -> PredictionLog:
    """A log that writes every 5 ms unless told otherwise."""
    options = {"flush": Seconds(0.005), "min_free": ByteSize(0)} | options
    metrics = MetricsFile(folder / f"{name}.metrics")
    return PredictionLog(LogConfig(**options), LogFolder(folder / "log"), "node", name, metrics)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Every row in the segments below a folder."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*~*~*.*")):
        if path.suffix in {".open", ".arrows"}:
            contents = read_segment(path)
            if contents.batches:
                found += pa.Table.from_batches(contents.batches).to_pylist()
    return found


def parquet_rows(folder: Path) -> list[dict[str, Any]]:
    """Every row in the Parquet files below a folder."""
    import pyarrow.parquet as pq

    found: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.parquet")):
        found += pq.ParquetFile(path).read().to_pylist()
    return found
