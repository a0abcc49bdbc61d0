"""Events of both versions, look by look, where each request is drawn by itself."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from serving.rollout.simulate.scenarios import Traffic
from serving.rollout.simulate.world import Signal

__all__ = ["Arrivals", "Floats", "Ints", "Requests", "spread"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Arrivals(Protocol):
    """Where events come from: many trials at once, step by step, stretch by stretch."""

    keyed: bool
    """Whether users stay with a version and count once."""

    def begin(self, rho: float, began: Ints) -> None:
        """A step with this probability of the canary begins, at these looks: shape [trials]."""
        ...

    def events(self, signal: Signal, offset: int, looks: int) -> tuple[Ints, Ints]:
        """What counts, of the canary and of production.

        Args:
            signal: what is counted.
            offset: looks since the step began.
            looks: how many.

        Returns:
            Both of shape [bins, trials, looks]; one bin for a signal without.
        """
        ...

    def requests(self, offset: int, looks: int) -> Ints:
        """Requests of the canary, shape [trials, looks]."""
        ...

    def met(self, offset: int, looks: int) -> Ints:
        """Units that meet the canary for the first time, shape [trials, looks]."""
        ...

    def failing(self, signal: Signal, offset: int, looks: int) -> tuple[Floats, Floats]:
        """Share of the canary's and production's requests with the event: [trials or 1, looks]."""
        ...

    def affected(self, signal: Signal, trial: Ints, since: Ints, until: Ints) -> tuple[Ints, Ints]:
        """Units of the canary and of production with an event in a stretch, however often.

        Args:
            signal: the event.
            trial: which trials, shape [stretches].
            since: first look of each stretch, of the step.
            until: look after the last.
        """
        ...

    def end(self, lasted: Ints) -> None:
        """The step has lasted so many looks, in each trial; what came after has not happened."""
        ...


def spread(values: Floats, began: Ints, offset: int, looks: int) -> Floats:
    """Values of a stretch, shape [trials, looks], or [1, looks] if all trials are at one place."""
    if len(began) and (began == began[0]).all():
        began = began[:1]
    places = np.minimum(began[:, None] + offset + np.arange(looks), len(values) - 1)
    found: Floats = values[places]
    return found


class Requests:
    """Each request draws its version; each has its events by itself.

    Args:
        traffic: volume and level, look by look.
        per_second: mean requests a second.
        trials: how many at once.
        random: where chance comes from.
    """

    keyed = False

    def __init__(
        self, traffic: Traffic, per_second: float, trials: int, random: np.random.Generator
    ) -> None:
        self._volume = traffic.volume * per_second * traffic.look
        self._level = traffic.level
        self._trials = trials
        self._random = random
        self._rho = 0.5
        self._began = np.zeros(trials, np.int64)

    def begin(self, rho: float, began: Ints) -> None:
        """See `Arrivals`."""
        self._rho, self._began = rho, began

    def events(self, signal: Signal, offset: int, looks: int) -> tuple[Ints, Ints]:
        """See `Arrivals`."""
        volume = spread(self._volume, self._began, offset, looks)
        level = spread(self._level, self._began, offset, looks) if signal.shared else 1.0
        pairs = signal.bins or ((signal.production, signal.canary),)
        canary = [
            self._drawn(volume * self._rho * np.minimum(1.0, mine * level), looks)
            for _, mine in pairs
        ]
        production = [
            self._drawn(volume * (1 - self._rho) * np.minimum(1.0, theirs * level), looks)
            for theirs, _ in pairs
        ]
        return np.stack(canary), np.stack(production)

    def requests(self, offset: int, looks: int) -> Ints:
        """See `Arrivals`."""
        return self._drawn(spread(self._volume, self._began, offset, looks) * self._rho, looks)

    def met(self, offset: int, looks: int) -> Ints:
        """Each request is a unit."""
        return self.requests(offset, looks)

    def failing(self, signal: Signal, offset: int, looks: int) -> tuple[Floats, Floats]:
        """See `Arrivals`."""
        level = spread(self._level, self._began, offset, looks)
        return np.minimum(1.0, signal.canary * level), np.minimum(1.0, signal.production * level)

    def affected(self, signal: Signal, trial: Ints, since: Ints, until: Ints) -> tuple[Ints, Ints]:
        """See `Arrivals`."""
        counts = []
        for share, part in ((signal.canary, self._rho), (signal.production, 1 - self._rho)):
            rate = self._volume * np.minimum(1.0, share * self._level) * part
            passed = np.concatenate([[0.0], np.cumsum(rate)])
            start, stop = (np.minimum(self._began[trial] + at, len(rate)) for at in (since, until))
            counts.append(self._random.poisson(passed[stop] - passed[start]))
        return counts[0], counts[1]

    def end(self, lasted: Ints) -> None:
        """Nothing is remembered."""

    def _drawn(self, mean: Floats, looks: int) -> Ints:
        return self._random.poisson(np.broadcast_to(mean, (self._trials, looks)))
