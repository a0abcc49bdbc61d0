import asyncio
import threading

import pytest

from serving.models.lane import Lane


async def test_calls_run_in_order_in_one_other_thread() -> None:
    """Everything posted happens in one thread, first come, first served."""
    lane = Lane("test-lane")
    seen: list[tuple[int, str]] = []
    for i in range(5):
        lane.post(lambda i=i: seen.append((i, threading.current_thread().name)))

    assert await lane.call(lambda: "done") == "done"
    assert seen == [(i, "test-lane") for i in range(5)]
    lane.close()


async def test_an_error_is_raised_where_the_call_is_awaited() -> None:
    """The thread survives it."""
    lane = Lane("test-lane")

    with pytest.raises(ZeroDivisionError):
        await lane.call(lambda: 1 / 0)

    assert await lane.call(lambda: 2) == 2
    lane.close()


async def test_a_cancelled_wait_does_not_disturb_the_next() -> None:
    """The call goes on; its outcome is forgotten."""
    lane = Lane("test-lane")
    gate = threading.Event()
    first = asyncio.create_task(lane.call(lambda: gate.wait(30)))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()

    assert await lane.call(lambda: 3) == 3
    assert first.cancelled()
    lane.close()


async def test_a_closed_lane_ends_its_thread_and_may_start_another() -> None:
    """Closing lets posted calls finish first."""
    lane = Lane("test-lane")
    thread = await lane.call(threading.current_thread)
    lane.close()
    lane.close()

    thread.join(30)

    assert not thread.is_alive()
    assert await lane.call(lambda: 4) == 4
    lane.close()
