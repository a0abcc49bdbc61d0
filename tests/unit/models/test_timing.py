import pytest

from serving.models.timing import INLINE_SECONDS, Backlog, RunTimes


def test_a_size_nobody_measured_is_guessed_from_its_neighbours() -> None:
    """Not above linear growth from a smaller size, not above what a larger one took."""
    times = RunTimes(64)
    assert times.expect(1) == 0.0

    times.observe(1, 10e-6)
    times.observe(16, 30e-6)

    assert times.expect(1) == 10e-6
    assert times.expect(8) == 30e-6
    assert times.expect(2) == pytest.approx(25e-6)
    assert times.expect(64) == pytest.approx(150e-6)


def test_what_was_never_measured_is_not_run_on_the_loop() -> None:
    """It may take for ever; the first run happens in the thread."""
    times = RunTimes(4)
    assert times.slow(1)

    times.observe(1, 5e-6)

    assert not times.slow(1)


def test_crossing_the_limit_takes_more_than_reaching_it() -> None:
    """A mean that wavers about 200 µs does not move a version to and fro."""
    times = RunTimes(1)
    times.observe(1, INLINE_SECONDS * 0.95)
    moves = []
    for seconds in [1.1, 0.9, 1.15, 0.9] * 50:
        times.observe(1, INLINE_SECONDS * seconds, INLINE_SECONDS * seconds)
        moves.append(times.slow(1))
    assert not any(moves)

    for _ in range(60):
        times.observe(1, INLINE_SECONDS * 1.5, INLINE_SECONDS * 1.5)
    assert times.slow(1)

    for _ in range(10):
        times.observe(1, INLINE_SECONDS * 0.9)
    assert times.slow(1)

    for _ in range(60):
        times.observe(1, INLINE_SECONDS * 0.5)
    assert not times.slow(1)


def test_runs_that_waited_for_the_interpreter_stay_on_the_loop() -> None:
    """Each took 5 ms because another thread worked; a thread of its own would not spare it that."""
    times = RunTimes(1)
    times.observe(1, 20e-6)

    for _ in range(100):
        times.observe(1, 5e-3)
        times.observe(1, 5e-3, 20e-6)

    assert not times.slow(1)
    assert times.expect(1) == pytest.approx(5e-3, rel=0.01)


def test_runs_in_the_thread_come_back_when_they_are_found_to_be_short() -> None:
    """They wait for the interpreter there too: what counts is how long they were at work."""
    times = RunTimes(1)
    times.observe(1, 1e-3, 1e-3)
    assert times.slow(1)

    for _ in range(60):
        times.observe(1, 1e-3, 20e-6)

    assert not times.slow(1)


def test_a_run_too_short_for_the_clock_is_short() -> None:
    """It is not taken for one that nobody has measured."""
    times = RunTimes(1)
    times.observe(1, 5e-6, 0.0)

    assert not times.slow(1)


def test_a_run_that_looks_long_has_the_next_one_looked_at() -> None:
    """And only as long as they look long: CPU time costs a system call."""
    times = RunTimes(1)
    times.observe(1, 20e-6)
    assert not times.doubtful

    times.observe(1, 5e-3)
    assert times.doubtful

    times.observe(1, 20e-6)
    assert not times.doubtful


def test_a_model_with_a_loop_is_never_short() -> None:
    """Whatever was measured, the next values may take longer."""
    times = RunTimes(4, always_slow=True)
    for _ in range(2000):
        times.observe(1, 1e-6)

    assert times.slow(1)
    assert times.slow(4)


def test_one_run_cut_short_by_the_scheduler_hardly_counts() -> None:
    """A single run a thousand times as long moves the mean by less than half."""
    times = RunTimes(1)
    times.observe(1, 10e-6)

    times.observe(1, 10e-3)

    assert times.expect(1) < 14e-6


def test_batches_grow_only_while_a_row_gets_cheaper() -> None:
    """Where eight rows cost as much apiece as sixty-four, eight is preferred."""
    flat = {1: 200e-6, 2: 300e-6, 4: 400e-6, 8: 600e-6, 16: 1250e-6, 32: 2500e-6, 64: 5000e-6}
    times = RunTimes(64)
    for _ in range(10):
        for rows, seconds in flat.items():
            times.observe(rows, seconds)

    assert times.preferred == 8


def test_a_larger_batch_is_tried_again_after_a_while() -> None:
    """One bad measurement does not keep batches small for ever."""
    times = RunTimes(4)
    times.observe(4, 10.0)
    for _ in range(64):
        times.observe(2, 20e-6)
    assert times.preferred == 2

    for _ in range(640):
        times.observe(2, 20e-6)

    assert times.preferred == 4


def test_a_stopped_run_teaches_that_its_size_takes_longer() -> None:
    """Next time such a batch is expected to take more than the time it was given."""
    times = RunTimes(4)
    times.observe(1, 0.06, 0.06)
    times.observe_stopped(4, 0.1)

    assert times.expect(4) == pytest.approx(0.2)
    assert times.slow(4)


def test_a_size_that_looks_absurd_beside_its_half_is_not_believed() -> None:
    """A stop or a stall at one size does not rule that size out for ever."""
    times = RunTimes(4)
    times.observe(2, 0.01)
    times.observe_stopped(4, 5.0)

    assert times.expect(4) == pytest.approx(0.025)


def test_the_slowdown_is_learned_only_while_work_waits() -> None:
    """Idle time between runs says nothing about how fast a queue drains."""
    backlog = Backlog()
    backlog.finished(10.0, 0.1, more=False)
    backlog.finished(20.0, 0.1, more=True)
    assert backlog.slowdown == 1.0

    for i in range(1, 200):
        backlog.finished(20.0 + 0.4 * i, 0.1, more=True)
    assert backlog.slowdown == pytest.approx(4.0, rel=0.01)

    for i in range(200):
        backlog.finished(1000.0 + i, 0.1, more=False)
    assert backlog.slowdown == pytest.approx(1.0, rel=0.01)
