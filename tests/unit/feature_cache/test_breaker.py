from feature_cache.breaker import Breaker


def failing(breaker: Breaker, times: int, now: float) -> None:
    """So many failures at once."""
    for _ in range(times):
        breaker.failed(now)


def test_it_opens_after_failures_in_a_row_only() -> None:
    """A success in between starts the count again."""
    breaker = Breaker(threshold=3, pause=1)
    failing(breaker, 2, 0)
    breaker.succeeded()
    failing(breaker, 2, 0)
    assert breaker.allows(0)

    breaker.failed(0)

    assert breaker.state(0) == "open"
    assert not breaker.allows(0.9)
    assert breaker.opened == 1


def test_one_caller_a_pause_tries_while_it_is_open() -> None:
    """The first to come is the probe; the others need not wait for it."""
    breaker = Breaker(threshold=1, pause=0.25)
    breaker.failed(0)

    assert breaker.state(0.25) == "half-open"
    assert breaker.allows(0.25)
    assert not breaker.allows(0.26)
    assert breaker.allows(0.5)


def test_success_closes_it() -> None:
    """And the next outage begins with the first pause again."""
    breaker = Breaker(threshold=1, pause=0.25)
    failing(breaker, 4, 0)
    breaker.succeeded()
    assert breaker.state(0) == "closed"

    breaker.failed(10)

    assert breaker.allows(10.25)


def test_pauses_grow_to_a_second_and_no_further() -> None:
    """Recovery is noticed within about a second of a try."""
    breaker = Breaker(threshold=1, pause=0.1)
    failing(breaker, 20, 0)

    assert not breaker.allows(0.99)
    assert breaker.allows(1.0)
