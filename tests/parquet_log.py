"""A prediction log in Parquet, as workers leave it behind, for tests that read one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = 1_767_225_600.0
"""2026-01-01T00:00Z, seconds since 1970."""


def prediction_id(
    at: float, number: int, *, model: str = "demo", version: str = "v1", role: str = "production"
) -> str:
    """As answers carry it."""
    return f"{int(at * 1e3):x}~0a{number:x}~{model}~{version}~{role}"


def row(at: float, number: int, **fields: Any) -> dict[str, Any]:
    """One row of the log: request `number`, answered by v1 in production unless said otherwise.

    `score` is the positive class's; features by their log name (`feature.AGEP`).
    """
    model = fields.pop("model", "demo")
    version, role = fields.pop("version", "v1"), fields.pop("role", "production")
    score = fields.pop("score", 0.75)
    made = {
        "prediction_id": prediction_id(at, number, model=model, version=version, role=role),
        "row": 0,
        "request_id": f"r{number}",
        "event_time": datetime.fromtimestamp(at, UTC),
        "model": model,
        "version": version,
        "role": role,
        "code": "OK",
        "sample_weight": 1.0,
        "entity.person_id": number,
        "output.label": int(score >= 0.5),
        "output.probabilities": [1 - score, score],
    }
    return made | fields


def write_log(log: Path, rows: list[dict[str, Any]], name: str = "part-0") -> None:
    """Write rows where those of their model and hour belong."""
    places: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in rows:
        hour = one["event_time"].astimezone(UTC).strftime("%Y-%m-%dT%H")
        places.setdefault((one["model"], hour), []).append(one)
    for (model, hour), of_place in places.items():
        folder = log / "parquet" / f"model={model}" / f"hour={hour}"
        folder.mkdir(parents=True, exist_ok=True)
        names = list(dict.fromkeys(key for one in of_place for key in one))
        columns = {key: pa.array([one.get(key) for one in of_place], _kind(key)) for key in names}
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")


def _kind(name: str) -> pa.DataType | None:
    kinds: dict[str, Any] = {
        "row": pa.int32(),
        "event_time": pa.timestamp("us", tz="UTC"),
        "output.probabilities": pa.list_(pa.float32()),
    }
    return pa.float32() if name.startswith("feature.") else kinds.get(name)


def scored(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of shape [count] and what came true of them, slightly miscalibrated."""
    random = np.random.default_rng(seed)
    odds = random.normal(0, 1.5, count)
    true = random.random(count) < 1 / (1 + np.exp(-0.8 * odds))
    return 1 / (1 + np.exp(-odds)), true.astype(int)
