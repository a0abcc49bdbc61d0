"""The prediction log of a gateway that has none."""

from typing import Protocol

from serving.recording.offer import Offer

__all__ = ["NoLog", "PredictionSink"]


class PredictionSink(Protocol):
    """Where the pipeline leaves what it answered."""

    on: bool
    """Whether it is worth the work of making an offer."""

    def offer(self, offer: Offer) -> None:
        """Take one request; never waits and never raises."""
        ...

    def publish(self) -> None:
        """Bring counters up to date; called from time to time."""
        ...

    def close(self) -> None:
        """Write what is held. Blocks for some seconds at most."""
        ...


class NoLog:
    """Keeps nothing."""

    on = False

    def offer(self, offer: Offer) -> None:
        """Keep nothing."""

    def publish(self) -> None:
        """Nothing was counted."""

    def close(self) -> None:
        """Nothing is open."""
