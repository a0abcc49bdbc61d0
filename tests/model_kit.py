"""What tests of models share: a runner that is a Python function, sessions without a check."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
from numpy.typing import NDArray

from serving.config.snapshot import StagedVersion
from serving.models import artifact
from serving.models.examination import examine
from serving.models.runtime import Model
from serving.models.session import Session
from serving.models.timing import RunTimes
from serving.types import Signature, TensorMetadata

Feed = dict[str, NDArray[Any]]


def session(model: bytes, *, limit: int = 64, in_thread: bool = False) -> Session:
    """Build a warm session in this thread; `in_thread` has its batcher never run it inline."""
    signature = examine(model)
    made = Session(Model(model), signature, model="m", version="v1", limit=limit)
    made.warm_up(limit if signature.batchable else 1)
    if in_thread:
        made.times = RunTimes(limit, always_slow=True)
    return made


def staged(directory: Path, model: bytes) -> StagedVersion:
    """Stage a model under `directory`, its signature read in this process."""
    source = onnx_models.save(directory / "source.onnx", model)
    sha256 = artifact.digest(source)
    path = artifact.stage(source, sha256, directory / "artifacts")
    return StagedVersion(path=str(path), sha256=sha256, signature=examine(model))


class Switch:
    """A stop switch that others can wait for."""

    def __init__(self) -> None:
        self.set = threading.Event()

    @property
    def terminate(self) -> bool:
        """Whether the run is to end."""
        return self.set.is_set()

    @terminate.setter
    def terminate(self, value: bool) -> None:
        assert value
        self.set.set()


class FunctionRunner:
    """X [n, 1] FP32 to Y [n, 1], by a function; remembers every feed it was run with.

    Runs inline unless `seconds` makes it believe that one row takes long.
    """

    has_texts = False

    def __init__(
        self,
        function: Callable[[NDArray[Any]], NDArray[Any]] = lambda x: x * 2,
        *,
        limit: int = 64,
        seconds: float = 1e-6,
        batchable: bool = True,
    ) -> None:
        self.signature = Signature(
            [TensorMetadata("X", "FP32", (-1, 1))],
            [TensorMetadata("Y", "FP32", (-1, 1))],
            batchable,
        )
        self.times = RunTimes(limit)
        self.times.observe(1, seconds)
        self.function = function
        self.runs: list[list[float]] = []
        self.switches: list[Switch] = []

    def prepare(self, feed: Feed) -> Feed:
        """Pass inputs as they are."""
        return feed

    def stop_switch(self) -> Switch:
        """Make a switch and remember it."""
        self.switches.append(Switch())
        return self.switches[-1]

    def run(
        self,
        feed: Feed,
        outputs: Sequence[str],  # noqa: ARG002 - there is only one
        stop: Any = None,  # noqa: ARG002 - functions here look at `switches`
    ) -> list[NDArray[Any]]:
        """Apply the function."""
        self.runs.append(feed["X"].ravel().tolist())
        return [self.function(feed["X"])]


def row(*values: float) -> Feed:
    """Make a feed X with one row per value."""
    return {"X": np.array(values, "<f4").reshape(-1, 1)}
