"""A batcher in front of a function, on a clock that only tests move."""

import asyncio
import threading
from pathlib import Path
from typing import Self

import numpy as np
from model_kit import FunctionRunner, row

from serving import metrics
from serving.clock import Clock, ManualClock
from serving.models.batcher import Batcher
from serving.models.waiting import Inference

BOUND = 30.0
"""Seconds after which a test gives up waiting for what should happen at once."""


class Bench:
    """Builds batchers that share a clock and a metrics file."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.metrics = metrics.MetricsFile(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.metrics.close()

    def batcher(
        self,
        runner: FunctionRunner,
        *,
        rows: int = 64,
        queue: int = 256,
        clock: Clock | None = None,
    ) -> Batcher:
        """Put a batcher in front of a runner."""
        return Batcher(
            runner,
            model="m",
            version="v1",
            max_batch_size=rows,
            max_queue_size=queue,
            metrics=self.metrics,
            clock=clock or self.clock,
        )

    def send(
        self, batcher: Batcher, *values: float, within: float = 10.0, shadow: bool = False
    ) -> "asyncio.Future[Inference]":
        """Send one request of these rows."""
        return batcher.infer(
            row(*values),
            rows=len(values),
            outputs=("Y",),
            deadline=self.clock.monotonic() + within,
            shadow=shadow,
        )


class Gate:
    """Holds a run in its thread until it is opened, or the run is stopped."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Pass through when the gate opens."""
        self.entered.set()
        assert self.opened.wait(BOUND)
        return x * 2


async def answers(*waiters: "asyncio.Future[Inference]") -> list[list[float]]:
    """Await answers and flatten them."""
    done = await asyncio.wait_for(asyncio.gather(*waiters), BOUND)
    return [inference.outputs[0].ravel().tolist() for inference in done]
