"""What is kept of every answer."""

import msgspec

__all__ = ["PredictionRecord"]


class PredictionRecord(msgspec.Struct, frozen=True, gc=False):
    """Which version answered, why, how long each station took, and how it ended.

    `time` is wall-clock seconds since 1970, durations are seconds; `code` is the gRPC word
    for the outcome ("OK", "INVALID_ARGUMENT", …). No tensor values are held here.
    """

    time: float
    prediction_id: str
    request_id: str
    model: str
    version: str
    role: str
    reason: str
    probability: float
    revision: int
    code: str
    rows: int
    batch_rows: int
    seconds: float
    queue_seconds: float
    compute_seconds: float


(
    TIME,
    PREDICTION_ID,
    REQUEST_ID,
    MODEL,
    VERSION,
    ROLE,
    REASON,
    PROBABILITY,
    REVISION,
    CODE,
    ROWS,
    BATCH_ROWS,
    SECONDS,
    QUEUE_SECONDS,
    COMPUTE_SECONDS,
) = range(len(PredictionRecord.__struct_fields__))
"""Where each field stands in an `Entry`, the tuple that the pipeline makes instead."""
