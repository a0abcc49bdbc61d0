"""Counting rows of the log again gives what the workers had counted."""

import drift_kit
import log_kit
import numpy as np
import pyarrow as pa

from feature_cache.status import Status
from serving.drift.counting import Counting
from serving.drift.recounting import Recount
from serving.recording.columns import digest_with, record_batch
from serving.recording.gathered import Walked
from serving.recording.schema import schema_of

VIEW_OF = {"AGEP": "person", "SEX": "person"}


def test_it_counts_what_a_worker_counts() -> None:
    """Columns, the view's rows, statuses and ages, role by role; refusals are passed over."""
    plan, reference = drift_kit.plan(), drift_kit.reference()
    offers = [
        drift_kit.with_status(log_kit.answer(plan, 0, rows=2), Status.OK, Status.NOT_FOUND),
        drift_kit.with_status(log_kit.answer(plan, 10), Status.OK | Status.STALE),
        *(log_kit.answer(plan, number) for number in range(20, 60)),
    ]
    shadow = [log_kit.answer(plan, number, role="shadow") for number in range(5)]
    schema, digest = schema_of(plan), digest_with(b"k" * 32)
    table = pa.Table.from_batches(
        [
            record_batch(Walked(offers), schema, 1.0, digest),
            record_batch(Walked(shadow), schema, 1.0, digest),
            record_batch(Walked([log_kit.refusal(plan, 7)]), schema, 1.0, digest),
        ]
    )
    recount = Recount(reference, VIEW_OF, 3600.0)
    recount.add(table.slice(0, 20))
    recount.add(table.slice(20))
    [part] = recount.parts()
    found = {key.role: (key.layout, counts) for key, counts in part.counts.items()}
    counting = Counting(reference, plan)

    for role, of_role in {"production": offers, "shadow": shadow}.items():
        layout, counts = found[role]
        expected = counting.count(Walked(of_role))
        assert layout.rows(counts) == counting.layout.rows(expected)
        for name, column in counting.layout.by_column(expected).items():
            assert np.array_equal(layout.by_column(counts)[name], column), name
        told, wanted = layout.traffic(counts), counting.layout.traffic(expected)
        assert told.views == wanted.views
        assert all(np.array_equal(told.columns[name], wanted.columns[name]) for name in VIEW_OF)


def test_rows_fall_into_the_parts_of_their_time() -> None:
    """Whatever order they are read in."""
    plan, reference = drift_kit.plan(), drift_kit.reference()
    start = log_kit.NOON - log_kit.NOON % 3600
    offers = [log_kit.answer(plan, n, at=start + 60 * minute) for n, minute in enumerate((5, 1, 1))]
    batch = record_batch(Walked(offers), schema_of(plan), 1.0, digest_with(b"k" * 32))
    recount = Recount(reference, VIEW_OF, 60.0)
    recount.add(pa.Table.from_batches([batch]))

    parts = recount.parts()

    assert [(part.start - start) // 60 for part in parts] == [1, 5]
    assert [int(next(iter(part.counts.values()))[0]) for part in parts] == [2, 1]


def test_a_column_that_the_log_does_not_have_is_not_counted() -> None:
    """A field that privacy drops, say: the others are counted all the same."""
    plan, reference = drift_kit.plan(), drift_kit.reference()
    batch = record_batch(
        Walked([log_kit.answer(plan, 1)]), schema_of(plan), 1.0, digest_with(b"k" * 32)
    ).drop_columns(["feature.SEX", "status.person", "age.person"])
    recount = Recount(reference, VIEW_OF, 60.0)
    recount.add(pa.Table.from_batches([batch]))
    [part] = recount.parts()
    [(key, counts)] = part.counts.items()
    columns = key.layout.by_column(counts)

    assert int(columns["AGEP"].sum()) == 1
    assert int(columns["SEX"].sum()) == 0
    assert "feature.AGEP" in recount.needs
    assert "output.probabilities" in recount.needs
