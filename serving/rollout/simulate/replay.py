"""A plan over a log: production against itself, split anew in each trial.

What happened, and when, is as it was; only which version a user would have had is drawn, by another
salt in each trial. Both versions are production, so every stop is a false alarm, and the share of
trials that stop is the plan's rate of false alarms on this very traffic. Each user counts once for
each thing, at his first event in the log.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.config.schema import RolloutConfig
from serving.rollout.simulate.arrivals import Floats, Ints
from serving.rollout.simulate.history import Happened, History, first_of_each
from serving.rollout.simulate.stages import Stage, stages
from serving.rollout.simulate.trial import run
from serving.rollout.simulate.verdicts import Answer, summed
from serving.rollout.simulate.watch import watches
from serving.rollout.simulate.world import USERS, Canary, Signal, World

__all__ = ["Replay", "replayed", "shortened"]

_KEY_CELLS: Final = 4_000_000
_BATCH: Final = 50


def replayed(
    rollout: RolloutConfig,
    history: History,
    *,
    runs: int,
    seed: int,
    told: Callable[[int, int], None] | None = None,
) -> Answer:
    """Try the plan's steps with a weight, from the log's beginning to its end at most.

    Args:
        rollout: the plan.
        history: the log, by what the plan's rules count.
        runs: how many splits.
        seed: of the splits.
        told: is called with how many are done, of how many.
    """
    plan = shortened([s for s in stages(rollout, World()) if s.rho > 0], history.seconds)
    rules = [
        msgspec.structs.replace(watch, signals=history.signals[watch.rule.name])
        for watch in watches(rollout, World(), Canary())
        if history.signals.get(watch.rule.name)
    ]
    batch = max(1, min(_BATCH, _KEY_CELLS // max(1, history.keys)))
    parts = []
    for begun in range(0, runs, batch):
        trials = min(batch, runs - begun)
        random = np.random.default_rng([seed, begun])
        replay = Replay(
            history.requests, history.events, keys=history.keys, trials=trials, random=random
        )
        parts.append(
            run(rollout, plan, rules, replay, errors=None, look=1.0, trials=trials, random=random)
        )
        if told is not None:
            told(begun + trials, runs)
    names = [rule.rule.name for rule in rules]
    left_out = [rule.name for rule in rollout.guardrails.rules if rule.name not in names]
    return summed("log", names, parts, 1.0, left_out)


def shortened(plan: list[Stage], seconds: float) -> list[Stage]:
    """As much of a plan as fits into so many seconds."""
    found = []
    for stage in plan:
        if seconds < 1:
            break
        least = min(stage.at_least, seconds)
        found.append(
            msgspec.structs.replace(stage, at_least=least, at_most=min(stage.at_most, seconds))
        )
        seconds -= least
    return found


class Replay:
    """The log as `serving.rollout.simulate.arrivals.Arrivals`.

    Args:
        requests: all of them, in order of time.
        events: by signal, each key once.
        keys: how many there are.
        trials: how many splits.
        random: where chance comes from.
    """

    keyed = True

    def __init__(
        self,
        requests: Happened,
        events: Mapping[str, Happened],
        *,
        keys: int,
        trials: int,
        random: np.random.Generator,
    ) -> None:
        self._requests = requests
        self._met = first_of_each(requests)
        self._events = events
        self._place = random.random((trials, keys), np.float32)
        self._trials = trials
        self._taken: NDArray[np.bool_] = self._place < 0
        self._began = np.zeros(trials, np.int64)

    def begin(self, rho: float, began: Ints) -> None:
        """See `Arrivals`."""
        self._taken = self._place < rho
        self._began = began

    def events(self, signal: Signal, offset: int, looks: int) -> tuple[Ints, Ints]:
        """See `Arrivals`."""
        bins = len(signal.bins) or 1
        if signal.name == USERS:
            _, met = self._counted(self._met, 1, offset, looks)
            return np.zeros_like(met), met
        return self._counted(self._events[signal.name], bins, offset, looks)

    def requests(self, offset: int, looks: int) -> Ints:
        """See `Arrivals`."""
        canary: Ints = self._counted(self._requests, 1, offset, looks)[0][0]
        return canary

    def met(self, offset: int, looks: int) -> Ints:
        """See `Arrivals`; only users whose first request in the log it is."""
        canary: Ints = self._counted(self._met, 1, offset, looks)[0][0]
        return canary

    def failing(self, signal: Signal, offset: int, looks: int) -> tuple[Floats, Floats]:
        """Hard stops are not tried on a log: it does not say what each worker saw."""
        raise NotImplementedError

    def affected(self, signal: Signal, trial: Ints, since: Ints, until: Ints) -> tuple[Ints, Ints]:
        """See `failing`."""
        raise NotImplementedError

    def end(self, lasted: Ints) -> None:
        """What has happened stays as it was."""

    def _counted(self, all_of: Happened, bins: int, offset: int, looks: int) -> tuple[Ints, Ints]:
        """Of canary and production, shape [bins, trials, looks]."""
        shape = (bins, self._trials, looks)
        canary, both = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for began in np.unique(self._began):
            trials = np.flatnonzero(self._began == began)
            start = int(began) + offset
            low, high = np.searchsorted(all_of.look, [start, start + looks])
            cell = all_of.bin[low:high] * looks + all_of.look[low:high] - start
            keys = all_of.key[low:high]
            every = np.bincount(cell, minlength=bins * looks).reshape(bins, looks)
            both[:, trials] = every[:, None]
            for trial in trials:
                mine = cell[self._taken[trial, keys]]
                canary[:, trial] = np.bincount(mine, minlength=bins * looks).reshape(bins, looks)
        return canary, both - canary
