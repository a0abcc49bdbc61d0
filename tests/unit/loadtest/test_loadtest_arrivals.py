"""When requests are due: rates, spacing, seeds, recorded loads."""

import numpy as np
import pytest

from serving.config.decode import decode
from serving.load_trace import LoadTrace, Point
from serving.loadtest.arrivals import Piece, arrivals, expected, pieces, replayed, traced
from serving.loadtest.scenario import Phase


def phase(text: str) -> Phase:
    """A phase as it is written."""
    decoded = decode(text, "phase.yaml", Phase)
    assert not decoded.problems
    found: Phase = decoded.value
    return found


@pytest.mark.parametrize(
    "text",
    [
        "{name: a, for: 50s, rate: 40}",
        "{name: a, for: 40s, ramp: {from: 20, to: 80}}",
        "{name: a, for: 40s, ramp: {from: 80, to: 20}}",
        "{name: a, for: 40s, steps: {from: 20, to: 80, count: 4}}",
        "{name: a, for: 30s, spike: {base: 40, peak: 120, at: 10s, lasts: 10s}}",
    ],
)
def test_every_shape_has_as_many_requests_as_its_rate_says(text: str) -> None:
    """All of these are 2,000 requests; a Poisson process is within five deviations of it."""
    rate = pieces(phase(text))

    assert expected(rate) == pytest.approx(2000)
    assert len(arrivals(rate, random=None)) == 2000
    drawn = arrivals(rate, random=np.random.default_rng(7))
    assert abs(len(drawn) - 2000) < 5 * 2000**0.5
    assert drawn[0] >= 0
    assert drawn[-1] < rate[-1].end
    assert (np.diff(drawn) >= 0).all()


def test_the_same_seed_gives_the_same_times() -> None:
    """A schedule can be had again, and another seed gives another."""
    rate = [Piece(0.0, 10.0, 50.0, 50.0)]
    first, again, other = (arrivals(rate, random=np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert first.tolist() == again.tolist()
    assert first[:5].tolist() != other[:5].tolist()


def test_constant_arrivals_are_evenly_spaced() -> None:
    """100 a second are 10 ms apart."""
    times = arrivals([Piece(0.0, 3.0, 100.0, 100.0)], random=None)

    assert times == pytest.approx(np.arange(300) / 100)


def test_poisson_distances_vary_as_an_exponential_distribution_does() -> None:
    """Mean and standard deviation of the distances are alike."""
    distances = np.diff(arrivals([Piece(0, 400.0, 50, 50)], random=np.random.default_rng(3)))

    assert distances.mean() == pytest.approx(0.02, rel=0.05)
    assert distances.std() == pytest.approx(distances.mean(), rel=0.05)


def test_a_ramp_is_as_dense_as_its_rate_at_each_place() -> None:
    """Requests in the first and the last second of a ramp from 10 to 110 over 10 s."""
    times = arrivals(pieces(phase("{name: a, for: 10s, ramp: {from: 10, to: 110}}")), random=None)

    assert (times < 1).sum() == pytest.approx(15, abs=1)
    assert (times >= 9).sum() == pytest.approx(105, abs=1)


def test_a_spike_is_where_it_is_said_to_be() -> None:
    """All but the base rate lies between its begin and its end."""
    rate = pieces(phase("{name: a, for: 10s, spike: {base: 10, peak: 100, at: 4s, lasts: 2s}}"))
    times = arrivals(rate, random=None)

    assert ((times >= 4) & (times < 6)).sum() == pytest.approx(200, abs=1)
    assert len(times) == pytest.approx(280, abs=1)


def test_a_spike_at_the_very_beginning_has_no_empty_piece() -> None:
    """Nothing is before it."""
    rate = pieces(phase("{name: a, for: 3s, spike: {base: 1, peak: 9, at: 0s, lasts: 1s}}"))

    assert [(one.start, one.end, one.low) for one in rate] == [(0.0, 1.0, 9.0), (1.0, 3.0, 1.0)]


def test_a_silence_in_a_trace_stays_silent() -> None:
    """No request falls into a piece with rate 0, and those after it are not moved."""
    trace = LoadTrace((Point(0, 10), Point(2, 0), Point(5, 10)), 8.0)
    times = arrivals(traced(trace, scale=1, speed=1, length=None), random=None)

    assert len(times) == 50
    assert not ((times > 2) & (times < 5)).any()


def test_a_trace_is_scaled_sped_up_and_cut() -> None:
    """Twice the rate at twice the speed is as many requests in half the time."""
    trace = LoadTrace((Point(0, 10), Point(4, 20)), 8.0)

    assert expected(traced(trace, scale=2, speed=2, length=None)) == pytest.approx(120)
    assert traced(trace, scale=1, speed=1, length=5)[-1] == Piece(4.0, 5.0, 20.0, 20.0)


def test_recorded_requests_keep_their_distances() -> None:
    """The first is sent at once, the others when they came, in their order."""
    times, index = replayed(np.array([100.0, 100.5, 103.0]), scale=1, speed=1)

    assert times.tolist() == [0.0, 0.5, 3.0]
    assert index.tolist() == [0, 1, 2]


def test_recorded_requests_can_be_thinned_and_multiplied() -> None:
    """Half of them are every second one; twice as many are spread up to the next."""
    recorded = np.array([0.0, 1.0, 2.0, 3.0])

    assert replayed(recorded, scale=0.5, speed=1)[1].tolist() == [0, 2]
    doubled, index = replayed(recorded, scale=2, speed=2)
    assert index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert doubled[:4].tolist() == [0.0, 0.25, 0.5, 0.75]
