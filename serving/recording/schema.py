"""The columns of the prediction log, in Arrow's types."""

from typing import Final

import pyarrow as pa

from serving.recording.row_plan import STATIONS, Column, RowPlan

__all__ = ["HEAD", "arrow_type", "schema_of"]

HEAD: Final = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("row", pa.int32()),
        ("rows", pa.int32()),
        ("request_id", pa.string()),
        ("trace_id", pa.string()),
        ("event_time", pa.timestamp("us", "UTC")),
        ("model", pa.string()),
        ("version", pa.string()),
        ("digest", pa.string()),
        ("role", pa.string()),
        ("assignment_reason", pa.string()),
        ("assignment_probability", pa.float64()),
        ("route_revision", pa.int64()),
        ("code", pa.string()),
        ("sample_weight", pa.float64()),
        ("batch_rows", pa.int32()),
        *((f"{station}_seconds", pa.float32()) for station in STATIONS),
        ("sent", pa.string()),
    ]
)
"""What every row has, whatever the model. `sent` names the features that the request brought
itself, separated by commas; `*` for a request that brought the whole input."""

_ARROW: Final[dict[str, pa.DataType]] = {
    "BOOL": pa.bool_(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "FP16": pa.float32(),
    "BF16": pa.float32(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
}


def schema_of(plan: RowPlan) -> pa.Schema:
    """The columns of one version's rows."""
    return pa.schema(
        [
            *HEAD,
            *((column.column, arrow_type(column)) for column in plan.kept),
            *((f"status.{view}", pa.string()) for view in plan.views),
            *((f"age.{view}", pa.float32()) for view in plan.views),
        ]
    )


def arrow_type(column: Column) -> pa.DataType:
    """The type of one column."""
    if column.policy == "hash":
        return pa.string()
    kind = _ARROW[column.datatype]
    return pa.list_(kind) if column.listed else kind
