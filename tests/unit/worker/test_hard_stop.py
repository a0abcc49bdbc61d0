"""What is obvious without statistics."""

from typing import Any

import msgspec
import pytest

from serving.config.schema import HardStops
from serving.config.snapshot_codec import dec_hook
from serving.worker.evidence.hard_stop import HardStop


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


def beside(rho: float) -> HardStop:
    """A stop of a canary that has this share of the traffic."""
    return HardStop(HardStops(), rho)


def test_five_failures_are_enough_while_production_has_none() -> None:
    """With a twentieth of the traffic."""
    one = beside(0.05)

    assert [one.ended(number, failed=True) for number in range(5)] == [False] * 4 + [True]


def test_an_incident_that_production_shares_trips_nothing() -> None:
    """Everything fails, with either version."""
    one = beside(0.05)
    for number in range(200):
        for part in range(19):
            one.production_requests += 1
            one.production_failed(number + part / 20)
        one.ended(number + 0.96, failed=True)

    assert one.tripped == ""


def test_what_production_failed_long_ago_does_not_excuse() -> None:
    """An incident that is over."""
    one = beside(0.05)
    for number in range(100):
        one.production_requests += 1
        one.production_failed(number / 10)

    assert any(one.ended(100 + number, failed=True) for number in range(10))


def test_with_more_of_the_traffic_it_takes_more_failures() -> None:
    """Of two versions with equal traffic one fails five times in a row by chance."""
    one = beside(0.5)

    said = [one.ended(number, failed=True) for number in range(20)]

    assert said.index(True) == 16


def test_one_user_who_fails_always_is_not_the_version() -> None:
    """His data is odd; half of what the canary answers is well."""
    one = beside(0.05)
    for number in range(300):
        one.production_requests += 19
        one.ended(number / 10, failed=number % 20 < 10, place=7 if number % 20 < 10 else number)

    assert one.tripped == ""


def test_a_canary_of_one_user_that_always_fails_is_stopped_too() -> None:
    """He alone cannot be evidence; forty failures beside a production without any are."""
    one = beside(0.05)
    said = []
    for number in range(40):
        one.production_requests += 19
        said.append(one.ended(number / 10, failed=True, place=7))

    assert said == [False] * 39 + [True]


def test_it_is_not_stopped_where_production_fails_that_often() -> None:
    """A fifth of production's requests fail in the same time."""
    one = beside(0.05)
    for number in range(200):
        one.production_requests += 4
        one.production_requests += 1
        one.production_failed(number / 10, number)
        one.ended(number / 10, failed=True, place=7)

    assert one.tripped == ""


def test_a_busy_production_is_compared_over_the_time_that_is_known() -> None:
    """More of its failures than are kept: older ones of the canary do not count either."""
    one = beside(0.05)
    for number in range(6000):
        one.production_requests += 1
        one.production_failed(number / 1000, number)
        if number % 20 == 0:
            one.ended(number / 1000, failed=True, place=-number)

    assert one.tripped == ""
