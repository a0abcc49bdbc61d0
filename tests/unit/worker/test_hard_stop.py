"""What is obvious without statistics."""

from typing import Any

import msgspec
import pytest

from serving.config.rollout import HardStops
from serving.config.snapshot_codec import dec_hook
from serving.worker.hard_stop import HardStop


def stop(**fields: Any) -> HardStop:
    """A stop with these options."""
    return HardStop(msgspec.convert(fields, HardStops, dec_hook=dec_hook))


def test_so_many_failures_in_a_row_are_enough() -> None:
    """The last straw is told once, and words say what it was."""
    one = stop(consecutive_errors=3, min_requests=100)

    said = [one.ended(number, failed=failed) for number, failed in enumerate([1, 1, 0, 1, 1, 1, 1])]

    assert said == [False] * 5 + [True, False]
    assert one.tripped == "3 requests failed one after another"


def test_a_row_of_zero_never_stops() -> None:
    """`consecutive_errors: 0` leaves it to the share."""
    one = stop(consecutive_errors=0, min_requests=100)

    assert not any(one.ended(number, failed=True) for number in range(99))


def test_a_share_of_failures_is_enough_among_enough_requests() -> None:
    """Half of twenty failed, though no two in a row."""
    one = stop(consecutive_errors=5, error_rate=0.5, min_requests=20)

    said = [one.ended(number / 10, failed=number % 2 == 1) for number in range(20)]

    assert said == [False] * 19 + [True]
    assert one.tripped == "10 of the last 20 requests failed"


def test_what_is_older_than_the_window_does_not_count() -> None:
    """Failures long ago say nothing of now."""
    one = stop(consecutive_errors=100, error_rate=0.5, min_requests=4, window="10s")
    for number in range(3):
        one.ended(number, failed=True)

    assert not one.ended(12.5, failed=True)
    assert one.tripped == ""


@pytest.mark.parametrize("rate", [100, 10_000])
def test_memory_has_a_bound(rate: int) -> None:
    """A busy worker keeps its last requests, not all of the window."""
    one = stop(window="1h")
    for number in range(2 * rate):
        one.ended(number / rate, failed=False)

    assert len(one._recent) <= 4096
