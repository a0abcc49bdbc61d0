"""Who serves a fresh connection, by everybody's counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.worker.spread_choice import choose


@pytest.mark.parametrize(("mine", "others"), [(0, [0]), (1, [0, 3]), (5, [4, 4, 9])])
def test_one_more_than_the_fewest_is_no_reason_to_move_it(mine: int, others: list[int]) -> None:
    """A tiny difference costs nobody a hand-over."""
    assert choose(mine, others) is None


def test_it_goes_to_the_worker_with_the_fewest() -> None:
    """Two more than somebody else has is more than is kept."""
    assert choose(5, [4, 3, 6]) == 1


def test_of_several_with_the_fewest_the_first_is_taken() -> None:
    """So that each worker, having its own order, begins with another."""
    assert choose(5, [4, 0, 0]) == 1


def test_up_to_five_quarters_of_the_mean_it_stays() -> None:
    """With a mean of a hundred, 125 are kept, however few the others have, and 127 are not."""
    assert choose(124, [90, 93, 92]) is None
    assert choose(126, [90, 91, 92]) == 0


def test_with_nobody_to_give_it_to_it_stays() -> None:
    """However many there are."""
    assert choose(1000, []) is None


@given(
    st.integers(2, 16).flatmap(
        lambda workers: st.lists(st.integers(0, workers - 1), min_size=2 * workers).map(
            lambda arrivals: (workers, arrivals)
        )
    )
)
def test_nobody_gets_more_than_twice_the_mean(case: tuple[int, list[int]]) -> None:
    """Whoever the kernel gives the connections to, if there are at least two a worker."""
    workers, arrivals = case
    counts = [0] * workers
    for accepted_by in arrivals:
        others = [*range(accepted_by + 1, workers), *range(accepted_by)]
        place = choose(counts[accepted_by], [counts[other] for other in others])
        counts[accepted_by if place is None else others[place]] += 1

    assert max(counts) <= 2 * len(arrivals) / workers
