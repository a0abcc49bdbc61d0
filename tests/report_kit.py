"""Handmade values for tests of reports: standings from real counts, performance from real rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from serving.config.frozen_bins import Reference
from serving.config.schema import LabelsConfig, MonitoringConfig, PredictionConfig
from serving.drift.bins import Counts, compile_bins
from serving.drift.count_layout import CountLayout
from serving.drift.counts_file import CountKey
from serving.drift.freezing import freeze
from serving.drift.standing import Standing, Watched, standing
from serving.drift.verdict import Evidence, judge
from serving.drift.windows import Part, stretches
from serving.performance.calibration import calibration_curve
from serving.performance.counts import Counts as Tally
from serving.performance.counts import Moments, ScoreBins
from serving.performance.coverage import Coverage, DelayPoint
from serving.performance.figures import figures
from serving.performance.report import Group, LabelStates, PerformanceReport, SliceComparison
from serving.performance.slices import compare_slices

__all__ = ["HOSTILE", "HOUR", "MONITORING", "performance_reports", "reference", "watched"]

HOUR = 3600.0
HOSTILE = "<script>alert('&\"')</script>"
MONITORING = MonitoringConfig(
    prediction=PredictionConfig(score="score"), important=["age"], labels=LabelsConfig()
)


def reference(
    *, text: str = "town", values: Sequence[str] = ("north", "south", "east")
) -> Reference:
    """Frozen from 5,000 people: a number, a text, a score."""
    people, chance = 5_000, np.random.default_rng(3)
    columns = {
        "age": chance.normal(40, 10, people),
        text: chance.choice(np.array(values, object), people),
        "score": chance.beta(2, 2, people),
    }
    return Reference(
        model="m",
        rows=people,
        created="2026-01-01T00:00:00Z",
        source="people of a test",
        columns=freeze(columns),
    )


def _counts(
    known: Reference, layout: CountLayout, hour: tuple[int, float, float], seed: tuple[int, int]
) -> Counts:
    rows, older, new = hour
    chance = np.random.default_rng(seed)
    names = list(known.columns)
    towns = chance.choice(np.array(known.columns[names[1]].values, object), rows)
    towns[chance.random(rows) < new] = "elsewhere"
    values = (chance.normal(40 + older, 10, rows), towns, chance.beta(2, 2, rows))
    vectors = [
        compile_bins(known.columns[name]).count(one)
        for name, one in zip(names, values, strict=True)
    ]
    vector = np.concatenate([[rows], *vectors]).astype(np.int64)
    return np.pad(vector, (0, layout.size - len(vector)))


def watched(
    known: Reference | None = None,
    *,
    version: str = "v1",
    role: str = "production",
    hours: Sequence[tuple[int, float, float]] = ((2000, 0, 0), (2000, 0, 0), (2000, 12, 0.08)),
    foreign: Sequence[str] = (),
) -> Watched:
    """A version's hours of traffic, judged.

    Args:
        known: the reference.
        version: by name.
        role: that it had.
        hours: rows, years that people are older, share of new towns; oldest first.
        foreign: columns that are not compared.
    """
    known = known or reference()
    layout = CountLayout(tuple((n, len(c.counts)) for n, c in known.columns.items()), (), ())
    key = CountKey(model=known.model, version=version, role=role, reference="r", layout=layout)
    parts = [
        Part(
            start=HOUR * at + 120.0 * part,
            end=HOUR * at + 120.0 * (part + 1),
            counts={key: _counts(known, layout, (rows // 30, older, new), (at, part))},
        )
        for at, (rows, older, new) in enumerate(hours)
        for part in range(30)
    ]
    found: Standing = standing(
        model=known.model,
        version=version,
        role=role,
        reference=known,
        monitoring=MONITORING,
        found=stretches(parts, key, HOUR),
        at=HOUR * len(hours),
        foreign=foreign,
    )
    return Watched(
        standing=found, verdict=judge(Evidence(drift=found.drift, quality=found.quality))
    )


def _tally(rows: int, *, luck: float = 0.0, seed: int = 0) -> Tally:
    chance = np.random.default_rng(seed)
    score = chance.uniform(0.05, 0.95, rows)
    true = (chance.random(rows) < score + luck).astype(float)
    said = (score >= 0.5).astype(float)
    measures = {
        "accuracy": Moments.of(said == true),
        "selection_rate": Moments.of(said),
        "recall": Moments.of(said[true == 1]),
        "false_positive_rate": Moments.of(said[true == 0]),
        "calibration_gap": Moments.of(score - true),
        "scored_true": Moments.of(true[true == 1]),
        "scored_false": Moments.of(true[true == 0]),
    }
    return Tally(rows=rows, labelled=rows, measures=measures, scores=ScoreBins.of(score, true))


def _group(tally: Tally, **keys: object) -> Group:
    scores = tally.scores
    assert scores is not None
    return Group(
        **{"version": "v1", "role": "production", **keys},  # type: ignore[arg-type]
        rows=1000,
        labelled=900,
        figures=figures(tally),
        calibration=[] if "bucket" in keys else calibration_curve(scores, 900),
    )


def performance_reports(*, column: str = "sex", groups: Sequence[str] = ("f", "m")) -> (
    Mapping[str, PerformanceReport]
):  # fmt: skip
    """By version, by time, by slice; the second group has bad luck."""
    whole = PerformanceReport(
        model="m",
        task="binary",
        by="version",
        since=0.0,
        until=6 * HOUR,
        rows=1000,
        labelled=900,
        groups=[_group(_tally(900))],
        slices=[],
        coverage=[Coverage(name="v1 (production)", value=0.9, low=0.88, high=0.92, rows=1000)],
        delay=[
            DelayPoint(seconds=60.0, value=0.2, low=0.17, high=0.23, rows=1000),
            DelayPoint(seconds=3600.0, value=0.9, low=0.88, high=0.92, rows=1000),
        ],
        labels=LabelStates(kept=900, joined=900),
        alerts=[],
        notes=[],
    )
    hours = [_group(_tally(300, seed=hour), bucket=HOUR * hour) for hour in range(6)]
    counts = {name: _tally(900, luck=-0.4 * at, seed=at) for at, name in enumerate(groups)}
    comparison = SliceComparison(
        version="v1", role="production", column=column, groups=compare_slices(counts)
    )
    return {
        "version": whole,
        "time": replace(whole, by="time", groups=hours),
        "slice": replace(whole, by="slice", groups=[], slices=[comparison]),
    }
