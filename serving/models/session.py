"""One model version, loaded: checked bytes in, a warm ONNX Runtime session out."""

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident
from time import perf_counter, thread_time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.errors import InferenceFailed, InvalidArtifact, InvalidRequest
from serving.models import artifact, probe
from serving.models.lane import Lane
from serving.models.runtime import Model, Stop, plain_reason
from serving.models.timing import RunTimes
from serving.quarantine.marks import Mark, unseen
from serving.types import Signature

__all__ = ["Feed", "Session"]

Feed = dict[str, NDArray[Any]]

_log: Final = logging.getLogger(__name__)

_LOADER: Final = Lane("sluice-loader")
"""Every session of this process is built here, one at a time: building two at once is not
safe in ONNX Runtime (microsoft/onnxruntime#27089)."""

_WARM_UP_SECONDS: Final = 2.0
_WARM_UP_RUNS: Final = 3


class Session:
    """One ONNX Runtime session and what is known about it.

    Made by `load`. `run` may be called from any thread, by one caller at a time.
    """

    def __init__(
        self,
        loaded: Model,
        signature: Signature,
        *,
        model: str,
        version: str,
        limit: int,
        mark: Mark | None = None,
    ) -> None:
        self.signature = signature
        self.times = RunTimes(limit, always_slow=signature.loops)
        self._model = loaded
        self._run = loaded.run
        self._running = (mark or unseen()).cell
        self._name = f"model '{model}' version '{version}'"
        self._texts = [one.name for one in signature.inputs if one.datatype == "BYTES"]
        self._text_outputs = {one.name for one in signature.outputs if one.datatype == "BYTES"}

    @classmethod
    async def load(
        cls,
        path: Path,
        sha256: str,
        signature: Signature,
        *,
        model: str,
        version: str,
        threads: int = 1,
        limit: int = 64,
        mark: Mark | None = None,
    ) -> "Session":
        """Load a checked file and warm it up, in the process's loader thread.

        Args:
            path: The staged file.
            sha256: Digest its bytes must have; loaded are the very bytes that had it.
            signature: What the check found; the session must declare the same.
            model: Name for messages.
            version: Name for messages.
            threads: ONNX Runtime's intra-op threads.
            limit: Most rows in one run.
            mark: Where it is noted that the version is being loaded, and later run.

        Raises:
            InvalidArtifact: The file is gone, changed, or does not load or run.
        """

        def build() -> Session:
            loaded = Model(artifact.read(path, sha256), threads=threads)
            if (loaded.inputs, loaded.outputs) != (signature.inputs, signature.outputs):
                raise InvalidArtifact(
                    "its inputs or outputs are not those found when it was checked"
                )
            rows = limit if signature.batchable else 1
            session = cls(loaded, signature, model=model, version=version, limit=rows, mark=mark)
            session.warm_up(rows)
            return session

        def build_marked() -> Session:
            with (mark or unseen()).loading():
                return build()

        return await _LOADER.call(build_marked)

    def warm_up(self, limit: int) -> None:
        """Run on zeros in growing batches, so that the first request is as fast as the rest.

        Sizes are 1, 4, 16 … and `limit`, as far as two seconds take it; `times` learns.

        Raises:
            InvalidArtifact: It fails although every size but the rows is declared.
        """
        inputs = self.signature.inputs
        names = [one.name for one in self.signature.outputs]
        guessed = probe.has_free_inner(inputs)
        limit = min(limit, probe.max_rows(inputs))
        began = perf_counter()
        for free in probe.FREE_SIZES if guessed else (1,):
            rows = 1
            try:
                while True:
                    feed = probe.zeros(inputs, rows, free)
                    for attempt in range(_WARM_UP_RUNS):
                        start, busy = perf_counter(), thread_time()
                        self._run(names, feed, None)
                        now, busy = perf_counter(), thread_time() - busy
                        if attempt or now - start > _WARM_UP_SECONDS / 10:  # the first is cold
                            self.times.observe(rows, now - start, busy)
                            if now - began > _WARM_UP_SECONDS / 2:
                                return
                    if rows == limit:
                        return
                    rows = min(4 * rows, limit)
            except Exception as error:
                if not guessed and rows == 1:
                    raise InvalidArtifact(
                        f"it fails on an input of zeros: {plain_reason(error)}"
                    ) from error
                if rows > 1:  # a size of batch it does not take; requests will be told alone
                    return

    @property
    def has_texts(self) -> bool:
        """Whether `prepare` has anything to do."""
        return bool(self._texts)

    def prepare(self, feed: Feed) -> Feed:
        """Turn BYTES inputs into the text ONNX Runtime takes; other tensors pass as they are.

        Raises:
            InvalidRequest: An element is not UTF-8; the message names the input.
        """
        if not self._texts:
            return feed
        feed = dict(feed)
        for name in self._texts:
            data = feed.get(name)
            if data is not None:
                feed[name] = _text(name, data)
        return feed

    def stop_switch(self) -> Stop:
        """Make a switch that ends the run it is given to, from another thread."""
        return self._model.stop_switch()

    def run(
        self, feed: Feed, outputs: Sequence[str], stop: Stop | None = None
    ) -> list[NDArray[Any]]:
        """Run once.

        Args:
            feed: Prepared inputs by name.
            outputs: Names of the outputs to compute.
            stop: A switch from `stop_switch`, if the run must be stoppable.

        Returns:
            One array per name in `outputs`; BYTES as object arrays of `bytes`.

        Raises:
            InferenceFailed: ONNX Runtime failed. Its words go to the log, not to the caller.
        """
        running = self._running
        running[0] = get_ident()  # should this be its last run, it is known whose it was
        try:
            results = self._run(outputs, feed, stop)
        except Exception as error:  # every class ONNX Runtime raises derives from Exception
            _log.warning("%s failed: %s", self._name, plain_reason(error))
            raise InferenceFailed(f"{self._name} failed on this input") from error
        finally:
            running[0] = 0
        if self._text_outputs:
            return [
                _bytes(data) if name in self._text_outputs else data
                for name, data in zip(outputs, results, strict=True)
            ]
        return results


def _text(name: str, data: NDArray[Any]) -> NDArray[Any]:
    text = np.empty(data.size, object)
    for i, element in enumerate(data.flat):
        try:
            text[i] = element if isinstance(element, str) else bytes(element).decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"input '{name}': element {i} is not valid UTF-8, and this model takes text"
            ) from error
    return text.reshape(data.shape)


def _bytes(data: NDArray[Any]) -> NDArray[Any]:
    encoded = np.empty(data.size, object)
    encoded[:] = [element.encode() for element in data.flat]
    return encoded.reshape(data.shape)
