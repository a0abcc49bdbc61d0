"""Whom to ask, whom to leave alone, and how often to try again."""

import random
from collections import Counter

import pytest

from serving.upstream.balance import EJECTED_LONGEST_SECONDS, Health, RetryBudget, pick


class Host:
    """Only what `pick` looks at."""

    def __init__(self, *, in_flight: int = 0, seconds: float = 0.0) -> None:
        self.health = Health()
        self.health.in_flight = in_flight
        if seconds:
            self.health.answered(seconds)


def test_nobody_is_picked_of_nobody() -> None:
    """The caller has to wait for somebody."""
    assert pick([], 0.0, random.randrange) is None


def test_the_less_busy_of_two_is_picked() -> None:
    """Whichever is drawn first."""
    busy, free = Host(in_flight=3), Host(in_flight=1)

    assert all(pick([busy, free], 0.0, random.Random(i).randrange) is free for i in range(50))


def test_slow_hosts_get_less() -> None:
    """Work is requests times the time of one: a host half as fast is as busy with half of them."""
    slow, fast = Host(seconds=0.02), Host(in_flight=1, seconds=0.005)

    assert pick([slow, fast], 0.0, random.randrange) is fast


def test_equal_hosts_share() -> None:
    """With answers that take their time, ten requests at once spread over five hosts."""
    hosts = [Host() for _ in range(5)]
    draw = random.Random(7).randrange
    for _ in range(50):
        host = pick(hosts, 0.0, draw)
        assert host is not None
        host.health.in_flight += 1

    loads = [host.health.in_flight for host in hosts]
    assert sum(loads) == 50
    assert max(loads) - min(loads) <= 5  # two choices; one choice alone would be wilder


def test_three_failures_in_a_row_eject() -> None:
    """An answer in between makes good."""
    health = Health()
    assert [health.failed(10.0), health.failed(10.0)] == [False, False]
    health.answered(0.001)
    assert [health.failed(10.0) for _ in range(3)] == [False, False, True]
    assert health.ejected_until == pytest.approx(11.0)


def test_the_rest_doubles_and_is_bounded() -> None:
    """1, 2, 4 … 30 seconds, as long as no answer comes in between."""
    health, rests = Health(), []
    for _ in range(7):
        while not health.failed(0.0):
            pass
        rests.append(health.ejected_until)

    assert rests == [1, 2, 4, 8, 16, EJECTED_LONGEST_SECONDS, EJECTED_LONGEST_SECONDS]


def test_an_ejected_host_rests_until_its_time() -> None:
    """And is asked again after it."""
    good, bad = Host(in_flight=5), Host()
    for _ in range(3):
        bad.health.failed(0.0)

    assert pick([good, bad], 0.5, random.randrange) is good
    assert pick([good, bad], 1.5, random.randrange) is bad


def test_with_most_of_them_ejected_all_are_asked() -> None:
    """Leaving two of three alone would only break the third."""
    hosts = [Host() for _ in range(3)]
    for host in hosts[:2]:
        for _ in range(3):
            host.health.failed(0.0)
    draw = random.Random(1).randrange

    picked = Counter(id(pick(hosts, 0.5, draw)) for _ in range(300))

    assert len(picked) == 3


def test_who_has_just_failed_is_avoided_if_there_is_another() -> None:
    """A retry goes elsewhere; with one host it goes to that again."""
    first, second = Host(), Host(in_flight=9)

    assert pick([first, second], 0.0, random.randrange, first) is second
    assert pick([first], 0.0, random.randrange, first) is first


def test_retries_are_a_share_of_requests() -> None:
    """Ten to begin with, then one for every five requests."""
    budget = RetryBudget()
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()

    assert spent == pytest.approx(10 + 200, abs=2)
