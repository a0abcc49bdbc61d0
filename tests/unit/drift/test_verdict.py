"""The three levels, and what each needs."""

import numpy as np

from serving.config.frozen_bins import FrozenColumn, Reference
from serving.drift.quality import Quality
from serving.drift.report import DriftOptions, DriftReport, Window, report
from serving.drift.verdict import Evidence, Loss, Tolerances, judge

SCORE = FrozenColumn(type="float", kind="categorical", values=[0, 1], counts=[0, 0, 0, 5000, 5000])
REFERENCE = Reference(model="m", rows=10_000, created="", source="", columns={"score": SCORE})
SOUND = Quality(broken=False, findings=[], words="")
BROKEN = Quality(broken=True, findings=[], words="view `person`: the store has no row in 40.0%")


def drift(*ones: int, score: str = "score") -> DriftReport:
    """A report on hours of 1,000 rows, so many of them 1."""
    windows = [
        Window(start=i, end=i + 1, blocks={"score": np.array([[0, 0, 0, 1000 - one, one]])})
        for i, one in enumerate(ones)
    ]
    return report(REFERENCE, windows, DriftOptions(score=score))


def loss(growth: float, rows: int = 5000, error: float = 0.005) -> Loss:
    """A loss beside a reference of 0.17."""
    return Loss(metric="error", rows=rows, now=0.17 + growth, error=error, reference=0.17)


def test_nothing_is_nothing() -> None:
    """No evidence, no level."""
    assert judge(Evidence()).level == "none"


def test_drift_alone_informs() -> None:
    """Nobody is woken."""
    found = judge(Evidence(drift=drift(700, score="")))

    assert found.level == "inform"
    assert "1 of 1 columns drifted" in found.reasons[0]


def test_a_score_that_keeps_drifting_alerts() -> None:
    """Two windows of three."""
    found = judge(Evidence(drift=drift(700, 700)))

    assert found.level == "alert"
    assert found.reasons[0].startswith("`score` keeps drifting: share of")


def test_drift_without_harm_never_triggers() -> None:
    """However strong, as long as the realised loss is what it was."""
    found = judge(Evidence(drift=drift(950, 950, 950), realised=loss(0.0)))

    assert found.level == "alert"


def test_harm_without_drift_triggers() -> None:
    """What no input test can see; only labels do."""
    found = judge(Evidence(drift=drift(500), quality=SOUND, realised=loss(0.05)))

    assert (found.level, found.evidence, found.labels) == ("trigger", "realised", 5000)
    assert found.reasons == ["error is 0.22, 0.05 more than the reference's 0.17; tolerance 0.02"]


def test_a_growth_within_its_tolerance_is_no_harm() -> None:
    """Even if it is certain."""
    assert judge(Evidence(realised=loss(0.015, error=0.001))).level == "none"


def test_a_growth_that_chance_explains_is_no_harm() -> None:
    """Beyond the tolerance, with an interval that reaches to nothing."""
    assert judge(Evidence(realised=loss(0.03, error=0.02))).level == "none"


def test_few_labels_alert_and_do_not_trigger() -> None:
    """Somebody may look."""
    found = judge(Evidence(realised=loss(0.1, rows=200)))

    assert found.level == "alert"
    assert found.reasons[0].endswith("but 200 labels are fewer than min_labels, 1000")


def test_an_estimate_alerts() -> None:
    """It is no proof of harm."""
    assert judge(Evidence(estimated=loss(0.05))).level == "alert"


def test_an_estimate_triggers_where_labels_are_late_and_the_score_drifts() -> None:
    """Marked as what it is."""
    late = Tolerances(labels_are_late=True, score="score")

    found = judge(Evidence(drift=drift(700, 700), estimated=loss(0.05)), late)

    assert (found.level, found.evidence) == ("trigger", "estimated")
    assert judge(Evidence(estimated=loss(0.05)), late).level == "alert"


def test_labels_that_are_there_beat_an_estimate() -> None:
    """If they say that all is well, it is."""
    late = Tolerances(labels_are_late=True, score="score")
    evidence = Evidence(drift=drift(700, 700), estimated=loss(0.05), realised=loss(0.0))

    assert judge(evidence, late).level == "alert"


def test_broken_data_alerts_and_is_remembered() -> None:
    """The retraining decision asks for it."""
    found = judge(Evidence(quality=BROKEN))

    assert found.level == "alert"
    assert found.quality_broken
    assert found.reasons == [f"data quality: {BROKEN.words}"]


def test_missing_labels_and_lost_records_alert() -> None:
    """What is not seen cannot be judged."""
    few = judge(Evidence(coverage=0.4, due=1000), Tolerances(min_coverage=0.8))
    lost = judge(Evidence(lost_records=7))

    assert few.reasons == ["40.0% of 1000 predictions have their label; min_coverage is 80.0%"]
    assert lost.reasons == ["7 records were not logged"]
    assert {few.level, lost.level} == {"alert"}


def test_no_label_is_missed_before_one_is_due() -> None:
    """Coverage of nothing says nothing."""
    assert judge(Evidence(coverage=0.0, due=0), Tolerances(min_coverage=0.8)).level == "none"


def test_the_gravest_reason_comes_first() -> None:
    """Of several."""
    found = judge(Evidence(drift=drift(700, 700), quality=BROKEN, realised=loss(0.05)))

    assert found.level == "trigger"
    assert found.reasons[0].startswith("error is")
    assert len(found.reasons) == 3
