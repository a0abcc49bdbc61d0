import asyncio

from serving.tasks import end


async def test_a_task_that_forgets_a_cancellation_is_asked_again() -> None:
    """What swallows the first cancellations ends all the same."""
    swallowed = 0

    async def deaf() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await end(task)

    assert task.cancelled()
    assert swallowed == 3


async def test_failed_finished_and_running_tasks_end_together() -> None:
    """Their errors are dropped: whoever cares has looked before."""

    async def fails() -> None:
        raise ValueError("nobody asks")

    failed = asyncio.create_task(fails())
    finished = asyncio.create_task(asyncio.sleep(0))
    running = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    await end(failed, finished, running)

    assert failed.done()
    assert finished.done()
    assert running.cancelled()


async def test_ending_nothing_is_nothing() -> None:
    """No tasks, no wait."""
    await end()
