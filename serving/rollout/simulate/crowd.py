"""Events of both versions where a user stays with a version, and counts once for each thing.

Users are as unequal as real ones: activity falls with rank, by Zipf's law; and a few users have
most of the errors, as those do whose data is odd. A user's requests come by a Poisson process, so
the time of his first event is where its cumulated rate reaches an exponential number. That number
is drawn once per user and thing; what is left of it goes along from step to step, with whichever
version he has by then.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.rollout.simulate.arrivals import Floats, Ints, spread
from serving.rollout.simulate.scenarios import Traffic
from serving.rollout.simulate.world import Signal

__all__ = ["Crowd"]

PRONE: Final = 0.02
"""Share of users who have …"""

PRONE_SHARE: Final = 0.8
"""… this share of what goes wrong."""

_ZIPF: Final = 1.1
_ZIPF_SHIFT: Final = 10.0
"""Activity of the user of rank n is proportional to (n + 10)⁻¹·¹: of 2,000 users, the most active
hundredth has a quarter of all requests."""

_MET: Final = Signal("", "met", 0.0, 1.0, shared=False)


class Crowd:
    """Users who stay with a version.

    Args:
        traffic: volume and level, look by look.
        per_second: mean requests a second, of all users.
        keys: how many users.
        trials: how many at once.
        random: where chance comes from.
    """

    keyed = True

    def __init__(
        self,
        traffic: Traffic,
        per_second: float,
        keys: int,
        trials: int,
        random: np.random.Generator,
    ) -> None:
        shares = (np.arange(keys) + _ZIPF_SHIFT) ** -_ZIPF
        self.activity: Floats = per_second * shares / shares.sum()
        """Requests a second of each user, shape [keys]."""

        self._volume = traffic.volume * traffic.look
        self._level = traffic.level
        self._random = random
        self._shape = (trials, keys)
        self._place = random.random(self._shape)
        self._prone = random.random(self._shape) < PRONE
        self._left: dict[str, Floats] = {}
        self._drawn: dict[str, Floats] = {}
        self._second: dict[str, Ints] = {}
        self._rates: dict[str, list[Floats]] = {}
        self._signals: dict[str, Signal] = {}
        self._began = np.zeros(trials, np.int64)
        self._taken = np.zeros(self._shape, np.bool_)
        self._canary_activity = np.zeros(trials)

    def begin(self, rho: float, began: Ints) -> None:
        """See `Arrivals`. Raising `rho` takes more users; none goes back."""
        self._began = began
        self._taken = self._place < rho
        self._canary_activity = self._taken @ self.activity
        self._second.clear()

    def events(self, signal: Signal, offset: int, looks: int) -> tuple[Ints, Ints]:
        """See `Arrivals`."""
        second = self._seconds(signal) - offset
        trial, key = np.nonzero((second >= 0) & (second < looks))
        taken = self._taken[trial, key]
        number = len(signal.bins) or 1
        cell = trial * looks + second[trial, key]
        if signal.bins:
            drawn = self._drawn[signal.name][trial, key]
            mine = _places(drawn, [pair[1] for pair in signal.bins])
            theirs = _places(drawn, [pair[0] for pair in signal.bins])
            cell = cell + np.where(taken, mine, theirs) * (self._shape[0] * looks)
        size, shape = number * self._shape[0] * looks, (number, self._shape[0], looks)
        return (
            np.bincount(cell[taken], minlength=size).reshape(shape),
            np.bincount(cell[~taken], minlength=size).reshape(shape),
        )

    def requests(self, offset: int, looks: int) -> Ints:
        """See `Arrivals`."""
        volume = spread(self._volume, self._began, offset, looks)
        found: Ints = self._random.poisson(volume * self._canary_activity[:, None])
        return found

    def met(self, offset: int, looks: int) -> Ints:
        """See `Arrivals`."""
        found: Ints = self.events(_MET, offset, looks)[0][0]
        return found

    def failing(self, signal: Signal, offset: int, looks: int) -> tuple[Floats, Floats]:
        """See `Arrivals`."""
        level = spread(self._level, self._began, offset, looks)
        found = []
        for share, mine in ((signal.canary, self._taken), (signal.production, ~self._taken)):
            activity = np.maximum(mine @ self.activity, 1e-9)
            prone = ((mine & self._prone) @ self.activity / activity)[:, None]
            odd, usual = _shares(share, level)
            found.append(prone * odd + (1 - prone) * usual)
        return found[0], found[1]

    def affected(self, signal: Signal, trial: Ints, since: Ints, until: Ints) -> tuple[Ints, Ints]:
        """See `Arrivals`."""
        found = np.zeros((2, len(trial)), np.int64)
        curves, kinds = np.stack(self.cumulated(signal)), self.kinds()
        last = curves.shape[1] - 1
        for place, (one, start, stop) in enumerate(zip(trial, since, until, strict=True)):
            began = self._began[one]
            passed = curves[:, min(began + stop, last)] - curves[:, min(began + start, last)]
            none = np.exp(-self.activity * passed[kinds[one]])
            has = self._random.random(len(none)) >= none
            found[:, place] = (has & self._taken[one]).sum(), (has & ~self._taken[one]).sum()
        return found[0], found[1]

    def end(self, lasted: Ints) -> None:
        """See `Arrivals`."""
        for name, second in self._second.items():
            gone = self._consumed(self._signals[name], self._began, self._began + lasted)
            left = self._left[name] - gone
            self._left[name] = np.where(second < lasted[:, None], np.inf, np.maximum(left, 0.0))

    def first(self, signal: Signal) -> Ints:
        """Look at which each user has his first event in this step, shape [trials, keys].

        A very late one if he has had it, or has none before the end of the traffic.
        """
        return self._seconds(signal)

    @property
    def taken(self) -> NDArray[np.bool_]:
        """Whether the new version answers a user, shape [trials, keys]."""
        return self._taken

    def cumulated(self, signal: Signal) -> list[Floats]:
        """Cumulated rate of the event for a request a second, shape [looks + 1] each.

        For a user of production who is not prone, one who is, and the same of the canary.
        """
        if signal.name not in self._rates:
            kinds = []
            for share in (signal.production, signal.canary):
                odd, usual = (
                    _shares(share, self._level) if signal.shared else (np.array(share),) * 2
                )
                kinds += [usual, odd]
            self._rates[signal.name] = [
                np.concatenate([[0.0], np.cumsum(self._volume * kind)]) for kind in kinds
            ]
        return self._rates[signal.name]

    def kinds(self) -> Ints:
        """Which of `cumulated` is a user's, shape [trials, keys]."""
        return 2 * self._taken.astype(np.int64) + self._prone

    def _seconds(self, signal: Signal) -> Ints:
        name = signal.name
        if name in self._second:
            return self._second[name]
        if name not in self._left:
            self._left[name] = self._random.exponential(size=self._shape)
            self._signals[name] = signal
            if signal.bins:
                self._drawn[name] = self._random.random(self._shape)
        kinds, second = self.kinds(), np.full(self._shape, np.iinfo(np.int64).max // 2)
        for kind, curve in enumerate(self.cumulated(signal)):
            trial, key = np.nonzero((kinds == kind) & np.isfinite(self._left[name]))
            began = np.minimum(self._began, len(curve) - 1)[trial]
            goal = curve[began] + self._left[name][trial, key] / self.activity[key]
            found = np.searchsorted(curve, goal) - 1
            there = found < len(curve) - 1
            second[trial[there], key[there]] = np.maximum(found - began, 0)[there]
        self._second[name] = second
        return second

    def _consumed(self, signal: Signal, start: Ints, stop: Ints) -> Floats:
        kinds, gone = self.kinds(), np.zeros(self._shape)
        for kind, curve in enumerate(self.cumulated(signal)):
            last = len(curve) - 1
            passed = curve[np.minimum(stop, last)] - curve[np.minimum(start, last)]
            gone = np.where(kinds == kind, passed[:, None] * self.activity, gone)
        return gone


def _shares(share: float, level: Floats) -> tuple[Floats, Floats]:
    """Of a prone user's requests, and of another's; their mean is `share · level` if both fit."""
    if share >= 1:
        return np.ones_like(level), np.ones_like(level)
    odd = np.minimum(1.0, share * level * PRONE_SHARE / PRONE)
    return odd, np.minimum(1.0, share * level * (1 - PRONE_SHARE) / (1 - PRONE))


def _places(drawn: Floats, shares: list[float]) -> Ints:
    return np.minimum(np.searchsorted(np.cumsum(shares), drawn, side="right"), len(shares) - 1)
