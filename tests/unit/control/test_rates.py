from serving.control.fleet.rates import Rate, Rates
from serving.metrics import Samples


def samples(ok: float, failed: float = 0.0) -> Samples:
    """Counters of one version, over two protocols."""
    return {
        ("sluice_requests_total", ("m", "v1", "production", "http", "OK")): [ok / 2],
        ("sluice_requests_total", ("m", "v1", "production", "grpc", "OK")): [ok / 2],
        ("sluice_requests_total", ("m", "v1", "production", "http", "INTERNAL")): [failed],
        ("sluice_batch_rows", ("m", "v1")): [1.0, 2.0],
    }


def rate(total: float, failed: float = 0.0) -> Rate:
    """What is expected of that version."""
    return Rate(
        model="m",
        version="v1",
        role="production",
        requests_per_second=total,
        failed_per_second=failed,
    )


def test_a_rate_needs_two_samples() -> None:
    """Before the second sample nothing is known, and nothing is made up."""
    rates = Rates()
    assert rates.now() == []
    rates.observe(samples(100), 0.0)
    assert rates.now() == []


def test_the_rate_is_what_was_counted_over_the_time() -> None:
    """Protocols are added; failures count as requests too."""
    rates = Rates()
    rates.observe(samples(100), 0.0)
    rates.observe(samples(140, 10), 5.0)

    assert rates.now() == [rate(10.0, 2.0)]


def test_old_traffic_leaves_the_window() -> None:
    """A burst a minute ago is not the rate of now."""
    rates = Rates(window=10.0)
    rates.observe(samples(0), 0.0)
    for second in range(1, 61):
        rates.observe(samples(6_000), float(second))

    assert rates.now() == [rate(0.0)]


def test_a_version_that_appears_counts_from_zero() -> None:
    """The first requests of a new version show at once."""
    rates = Rates()
    rates.observe({}, 0.0)
    rates.observe(samples(20), 2.0)

    assert rates.now() == [rate(10.0)]


def test_shadow_copies_that_were_run_are_the_rate_of_the_shadow() -> None:
    """Dropped copies cost nothing and are nobody's traffic."""
    rates = Rates()
    rates.observe({}, 0.0)
    outcomes = {"answered": 30.0, "failed": 10.0, "dropped": 60.0}
    rates.observe(
        {("sluice_mirrored_total", ("m", "v2", one)): [n] for one, n in outcomes.items()}, 10.0
    )

    assert rates.now() == [
        Rate(model="m", version="v2", role="shadow", requests_per_second=4.0, failed_per_second=1.0)
    ]
