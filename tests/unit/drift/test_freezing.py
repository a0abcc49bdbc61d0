"""How a reference's columns are cut."""

import numpy as np
import pytest

from serving.drift.freezing import freeze, freeze_column


@pytest.fixture
def chance() -> np.random.Generator:
    """The same draws for each test."""
    return np.random.default_rng(5)


def test_a_number_of_many_values_is_cut_into_quantiles(chance: np.random.Generator) -> None:
    """Sixteen bins of like size, and nothing outside."""
    column = freeze_column(chance.normal(size=1600))

    assert (column.type, column.kind) == ("float", "numeric")
    assert column.counts[:4] == [0, 0, 0, 0]
    assert len(column.counts[4:]) == 16
    assert all(95 <= count <= 105 for count in column.counts[4:])


def test_a_number_of_few_values_is_categorical() -> None:
    """Codes have no order; the most frequent comes first."""
    column = freeze_column(np.repeat([7, 3], [40, 160]))

    assert (column.type, column.kind, column.values) == ("integer", "categorical", [3, 7])
    assert column.counts == [0, 0, 0, 160, 40]


def test_a_value_of_many_rows_leaves_one_edge(chance: np.random.Generator) -> None:
    """Equal quantiles are one edge, and edges ascend."""
    column = freeze_column(np.concatenate((np.zeros(500), chance.random(500))))

    assert column.kind == "numeric"
    assert len(column.edges) < 17
    assert sum(column.counts) == 1000


def test_missing_values_of_the_reference_are_counted(chance: np.random.Generator) -> None:
    """So a column that always had nulls does not alarm because of them."""
    values = chance.random(1000)
    values[:30] = np.nan

    assert freeze_column(values).counts[0] == 30


def test_a_value_seen_once_makes_new_ones_likely() -> None:
    """Good and Turing: as many rows would be new to another table like this one."""
    column = freeze_column(np.concatenate((np.repeat([1, 2], 100), [3, 4, 5])))

    assert column.seen_once == 3
    assert column.rows == 203


def test_of_many_texts_the_most_frequent_have_bins() -> None:
    """The others share one, and so does whatever comes later."""
    texts = ["often"] * 60 + [f"word {i}" for i in range(100)]

    column = freeze_column(np.array(texts, object))

    assert (column.kind, column.values[0], len(column.values)) == ("frequent", "often", 50)
    assert column.counts[2] == 51


def test_a_column_without_a_finite_value_still_freezes() -> None:
    """Every value it may have later is new."""
    column = freeze_column(np.full(100, np.nan))

    assert (column.kind, column.values, column.counts) == ("categorical", [], [100, 0, 0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(99), "99 rows are too few"),
        (np.zeros((200, 2)), "one value a row"),
        (np.zeros(200, "datetime64[s]"), "cannot be binned"),
        (np.array(["a", 1] * 100, object), "holds 1 among texts"),
    ],
)
def test_what_cannot_be_frozen_is_named(values: object, words: str) -> None:
    """The message says which column, and what is wrong with it."""
    with pytest.raises(ValueError, match=f"column `x`: .*{words}"):
        freeze({"x": values})


def test_hours_that_differ_make_a_column_overdispersed(chance: np.random.Generator) -> None:
    """What goes up and down by itself is not drift."""
    hours = np.repeat(np.arange(24), 100)
    steady = chance.random(2400) < 0.5
    busy = chance.random(2400) < np.where(hours % 2, 0.8, 0.2)

    frozen = freeze({"steady": steady, "busy": busy}, hours)

    assert frozen["steady"].overdispersion < 2
    assert frozen["busy"].overdispersion > 10
