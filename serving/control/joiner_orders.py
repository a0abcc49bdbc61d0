"""What control asks of its joiner, and what it is answered. See `serving.control.joiner`."""

from typing import Literal

import msgspec

from serving.performance.report import PerformanceReport
from serving.performance.slices import Tolerance
from serving.recording.joined import JoinPlan
from serving.recording.label import Label

__all__ = ["Answer", "By", "Failed", "Found", "LookUp", "Order", "Report", "Told"]

By = Literal["version", "role", "slice", "time"]


class LookUp(msgspec.Struct, frozen=True, kw_only=True, tag="look_up"):
    """Are these labels of one model known already, and are their predictions in the log?"""

    model: str
    entity: list[str]
    labels: list[Label]


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """How well does a model do? `bucket` is in seconds, for `by` time."""

    plan: JoinPlan
    by: By
    bucket: float
    min_coverage: float
    tolerance: Tolerance


class Found(msgspec.Struct, frozen=True, kw_only=True, tag="found"):
    """By place in the labels: the value kept for the key, and when the prediction was made."""

    kept: dict[int, float | str]
    made: dict[int, float]


class Told(msgspec.Struct, frozen=True, kw_only=True, tag="told"):
    """The report."""

    report: PerformanceReport


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """It could not be done. `ours`: not for anything the caller could change."""

    words: str
    ours: bool = False


Order = LookUp | Report
Answer = Found | Told | Failed
