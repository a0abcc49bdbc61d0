"""Several requests in one run: which may share it, how rows are joined and cut apart again.

Decisions and array work only: no clock, no loop, no futures.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.errors import InferenceFailed, ServingError
from serving.models.runtime import Stop
from serving.models.timing import RunTimes
from serving.types import Signature

__all__ = ["Answer", "Runner", "alone", "answer", "cut", "join", "key", "union"]

Feed = dict[str, NDArray[Any]]
Answer = list[NDArray[Any]] | ServingError
"""What one request gets: its outputs, aligned with the names it asked for, or why not."""


class Runner(Protocol):
    """What a batcher runs; `Session` is one."""

    signature: Signature
    times: RunTimes

    @property
    def has_texts(self) -> bool:
        """Whether `prepare` must be called."""
        ...

    def prepare(self, feed: Feed) -> Feed:
        """Check and convert one request's inputs. Raises InvalidRequest."""
        ...

    def stop_switch(self) -> Stop:
        """Make a switch that ends one run from another thread."""
        ...

    def run(
        self, feed: Feed, outputs: Sequence[str], stop: Stop | None = None
    ) -> list[NDArray[Any]]:
        """Run once. Raises ServingError."""
        ...


def key(feed: Feed, names: Sequence[str], rows: int) -> tuple[object, ...] | None:
    """Describe a request's tensors apart from its rows; equal keys may share a run.

    None if it must run alone: an input is missing, added, or has another number of rows.
    """
    if len(feed) != len(names):
        return None
    parts: list[object] = []
    for name in names:
        data = feed.get(name)
        if data is None:
            return None
        shape = data.shape
        if not shape or shape[0] != rows:
            return None
        parts += shape[1:], data.dtype
    return tuple(parts)


def union(wishes: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Name every output that somebody in the batch asked for, once."""
    first = wishes[0]
    if wishes.count(first) == len(wishes):
        return first
    return tuple(dict.fromkeys(name for wish in wishes for name in wish))


def join(feeds: Sequence[Feed]) -> Feed:
    """Put the rows of several requests under each other, in order."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def cut(outputs: Sequence[NDArray[Any]], sizes: Sequence[int]) -> list[list[NDArray[Any]]]:
    """Give every request its own rows of every output, as views.

    Raises:
        InferenceFailed: An output does not have one row per row of input.
    """
    total = sum(sizes)
    if any(output.shape[:1] != (total,) for output in outputs):
        raise InferenceFailed("the model's outputs do not have one row per row of input")
    parts = []
    start = 0
    only = outputs[0] if len(outputs) == 1 else None
    for size in sizes:
        end = start + size
        # Mostly there is one output, and a comprehension costs a frame.
        parts.append(
            [only[start:end]] if only is not None else [output[start:end] for output in outputs]
        )
        start = end
    return parts


def alone(runner: Runner, feed: Feed, wish: tuple[str, ...], stop: Stop | None) -> Answer:
    """Run one request by itself. Never raises."""
    try:
        return runner.run(feed, wish, stop)
    except ServingError as error:
        # A fresh one: the traceback of this one holds the frames, and so the arrays, above.
        return type(error)(error.message)
    except Exception:  # noqa: BLE001 - whatever it is, somebody is waiting for an answer
        return InferenceFailed("the model failed on this input")


def answer(
    runner: Runner,
    feeds: Sequence[Feed],
    sizes: Sequence[int],
    wishes: Sequence[tuple[str, ...]],
    stop: Stop | None = None,
) -> tuple[list[Answer], bool]:
    """Run requests together; if that fails, one by one, so that only the guilty one fails.

    Args:
        runner: What to run.
        feeds: Prepared inputs, one mapping per request; equal `key`s.
        sizes: Rows of each.
        wishes: Output names each asked for.
        stop: Switch for these runs; once it is set, what has not run is not run.

    Returns:
        One answer per request, in order, and whether a single run answered all of them.
        Never raises.
    """
    try:
        names = union(wishes)
        parts = cut(runner.run(join(feeds), names, stop), sizes)
    except Exception:  # noqa: BLE001 - whose fault it was shows below
        return [
            InferenceFailed("the run was stopped")
            if stop is not None and stop.terminate
            else alone(runner, feed, wish, stop)
            for feed, wish in zip(feeds, wishes, strict=True)
        ], False
    if wishes.count(names) == len(wishes):
        return list(parts), True
    place = {name: i for i, name in enumerate(names)}
    return [
        [part[place[name]] for name in wish] for part, wish in zip(parts, wishes, strict=True)
    ], True
