"""How a version is reached: one interface, wherever the version runs."""

import asyncio
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from serving.models.waiting import Inference, Waiter
from serving.types import Signature

__all__ = ["Direct", "Inference", "Upstream", "Waiter"]


class Upstream(Protocol):
    """One model version that answers, in this process or elsewhere."""

    @property
    def signature(self) -> Signature:
        """What the version takes and gives."""
        ...

    def ready(self) -> bool:
        """Whether requests may be sent: loaded and warm, not closed."""
        ...

    def there(self) -> bool:
        """Whether somebody would answer now; False where a process has to be started first."""
        ...

    def infer(
        self,
        feed: dict[str, NDArray[Any]],
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
        shadow: bool = False,
    ) -> "asyncio.Future[Inference]":
        """Answer one request. Refuses at once by raising, or returns a future.

        Args:
            feed: Every input by name, dtype as `serving.types.NUMPY_OF`. Not changed; it must
                not be changed by the caller either until the future is done.
            rows: Size of the first dimension; any number where the version does not batch.
            outputs: Names of the outputs wanted, each at most once; empty means all.
            deadline: Monotonic second by which the answer is needed.
            shadow: Nobody waits for it: run on idle capacity, dropped first.

        Returns:
            A future of the answer. Cancelling it gives up and disturbs nobody else.

        Raises:
            ModelNotReady: Not loaded yet, or closed.
            InvalidRequest: More rows than the version takes, none, or BYTES that are not UTF-8.
            DeadlineExceeded: The deadline has passed.
            Overloaded: It would not be answered in time; `reason` says which bound it met.

        The future may end with these too, and with InferenceFailed.
        """
        ...

    async def close(self) -> None:
        """Refuse new requests and finish those in flight. Cancelling the wait ends them."""
        ...


@runtime_checkable
class Direct(Protocol):
    """An upstream that can tell somebody the answer, without the event loop between them."""

    def answer(
        self,
        waiter: Waiter,
        feed: dict[str, NDArray[Any]],
        *,
        rows: int,
        outputs: tuple[str, ...],
        deadline: float,
    ) -> None:
        """As `Upstream.infer`; the waiter, if it is not refused at once, is told."""
        ...
