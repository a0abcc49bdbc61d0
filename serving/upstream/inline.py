"""A version that runs in this process: no hop, one session, one batcher."""

import asyncio
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from serving.clock import Clock
from serving.config.schema import ServeConfig
from serving.config.snapshot import StagedVersion
from serving.errors import ModelNotReady, SluiceError
from serving.metrics import MetricsFile
from serving.models.batcher import Batcher
from serving.models.session import Session
from serving.models.waiting import Inference, Waiter
from serving.quarantine.marks import Mark, Marks
from serving.types import Signature

__all__ = ["InlineUpstream"]


class InlineUpstream:
    """One staged version, served from this process. Not ready until `load` has returned.

    Args:
        model: The model's name.
        version: The version's name.
        staged: Its file, digest and signature, as control published them.
        serve: Batch and queue bounds, threads.
        metrics: This process's numbers.
        clock: Whose monotonic seconds deadlines are in.
        marks: Where this process notes what it runs, for whoever asks what killed it.
    """

    def __init__(  # noqa: PLR0917 - its six parts are all of different types
        self,
        model: str,
        version: str,
        staged: StagedVersion,
        serve: ServeConfig,
        metrics: MetricsFile,
        clock: Clock,
        *,
        marks: Marks | None = None,
    ) -> None:
        self.model = model
        self.version = version
        self._staged = staged
        self._serve = serve
        self._metrics = metrics
        self._clock = clock
        self._batcher: Batcher | None = None
        self._closed = False
        self._marks = marks
        self._mark: Mark | None = None

    @property
    def signature(self) -> Signature:
        """What the check found in the file."""
        return self._staged.signature

    async def load(self) -> None:
        """Load the file, in the process's loader thread, and warm it up.

        Raises:
            InvalidArtifact: The file is gone, changed, or does not load or run.
            ModelNotReady: It was closed meanwhile.
        """
        if self._marks is not None:
            self._mark = self._marks.take(self.model, self.version, self._staged.sha256)
        try:
            session = await Session.load(
                Path(self._staged.path),
                self._staged.sha256,
                self._staged.signature,
                model=self.model,
                version=self.version,
                threads=self._serve.intra_op_threads,
                limit=self._serve.max_batch_size,
                mark=self._mark,
            )
            if self._closed:
                raise self._not_ready()
        except SluiceError:
            self._unmark()
            raise
        self._batcher = Batcher(
            session,
            model=self.model,
            version=self.version,
            max_batch_size=self._serve.max_batch_size,
            max_queue_size=self._serve.max_queue_size,
            metrics=self._metrics,
            clock=self._clock,
        )

    def _unmark(self) -> None:
        if self._marks is not None and self._mark is not None:
            self._marks.free(self._mark)
            self._mark = None

    def _not_ready(self) -> ModelNotReady:
        state = "has been unloaded" if self._closed else "is not loaded yet"
        return ModelNotReady(f"model '{self.model}' version '{self.version}' {state}")

    def ready(self) -> bool:
        """Whether it is loaded, warm and not closed."""
        return self._batcher is not None and not self._closed

    def there(self) -> bool:
        """The same: it needs no process of its own."""
        return self.ready()

    def infer(
        self,
        feed: dict[str, NDArray[Any]],
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
        shadow: bool = False,
    ) -> "asyncio.Future[Inference]":
        """Answer one request; see `Upstream.infer` and `Batcher.infer`."""
        batcher = self._batcher
        if batcher is None or self._closed:
            raise self._not_ready()
        return batcher.infer(feed, rows=rows, outputs=outputs, deadline=deadline, shadow=shadow)

    def answer(
        self,
        waiter: Waiter,
        feed: dict[str, NDArray[Any]],
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
    ) -> None:
        """Answer one request to somebody who is told; see `Direct` and `Batcher.answer`."""
        batcher = self._batcher
        if batcher is None or self._closed:
            raise self._not_ready()
        batcher.answer(waiter, feed, rows=rows, outputs=outputs, deadline=deadline)

    async def close(self) -> None:
        """Finish what is in flight, then let go of the session."""
        self._closed = True
        batcher = self._batcher
        if batcher is not None:
            try:
                await batcher.close()
            finally:
                self._batcher = None
            self._unmark()
