"""What a worker keeps for counting, and for how long."""

import gc
import weakref
from pathlib import Path

import drift_kit
import log_kit

from serving.drift.counts_file import read_counts
from serving.recording.gathered import Walked
from serving.recording.row_plan import RowPlan
from serving.worker.drift_counts import DriftCounts


def counted_plan() -> RowPlan:
    """A plan whose rows are counted, as each table has its own."""
    plan = drift_kit.plan()
    plan.reference = drift_kit.reference()
    return plan


def test_counting_keeps_nothing_of_a_plan_that_is_gone(tmp_path: Path) -> None:
    """A table that is replaced takes its plans along, and the references whose bins they had."""
    counts = DriftCounts(tmp_path / "w.counts")
    plan = counted_plan()
    counts(Walked([log_kit.answer(plan, 1)]))
    gone = weakref.ref(plan)

    del plan
    gc.collect()  # the offer's own cycles, if it has any

    assert gone() is None
    counts.close()


def test_the_plan_of_a_new_table_goes_on_with_the_same_counts(tmp_path: Path) -> None:
    """The same version under another plan adds to what was counted before."""
    counts = DriftCounts(tmp_path / "w.counts")
    for number in range(3):
        plan = counted_plan()
        counts(Walked([log_kit.answer(plan, number)]))
    counts.close()

    [(_, vector)] = read_counts(tmp_path / "w.counts").items()
    assert vector[0] == 3
