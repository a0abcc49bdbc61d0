"""The same trials through the very functions that control runs: judge, then decide.

Thousands of times slower than `trial`, which has the formulas as arrays. It is what shows that both
decide alike, and it says in the product's words why a trial ended.
"""

import msgspec
import numpy as np

from serving.config.schema import RolloutConfig
from serving.config.snapshot import RolloutTraffic
from serving.rollout.baking import Facts, Look
from serving.rollout.decide import decide
from serving.rollout.judge import judge
from serving.rollout.looks import RuleLook, looked
from serving.rollout.simulate.arrivals import Arrivals, Ints
from serving.rollout.simulate.stages import Stage
from serving.rollout.simulate.world import USERS, Signal
from serving.rollout.state import Event, RolloutState, after

__all__ = ["Ending", "walk"]

_BEGAN = 1.8e9


class Ending(msgspec.Struct, frozen=True):
    """How one trial ended."""

    look: int
    """Looks since the first step with a weight began."""

    event: Event


class _Tally:
    """A `serving.rollout.looks.EventBook` that is told counts."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[float, tuple[int, int]]] = {}
        self.requests = (0, 0)
        self.shadow: dict[str, int] = {}
        self.seconds: tuple[list[float], list[float]] = ([], [])

    @property
    def keys(self) -> tuple[int, int]:
        """Users of production, where they are counted."""
        met = self.exposures().values()
        return (self.requests[0], sum(pair[1] for pair in met)) if met else self.requests

    @property
    def keyed(self) -> bool:
        """Whether users are counted."""
        return bool(self.exposures())

    def events(self, signal: str) -> dict[float, tuple[int, int]]:
        return self.counts.get(signal, {})

    def exposures(self) -> dict[float, tuple[int, int]]:
        return self.counts.get(USERS, {})

    def signals(self, rule: str) -> list[str]:
        return sorted(name for name in self.counts if name.partition(":")[0] == rule)

    def crowded(self, rule: str) -> bool:
        del rule
        return False

    def add(self, name: str, rho: float, canary: int, production: int) -> None:
        before = self.counts.setdefault(name, {}).get(rho, (0, 0))
        self.counts[name][rho] = before[0] + canary, before[1] + production


def walk(
    rollout: RolloutConfig,
    plan: list[Stage],
    signals: list[Signal],
    arrivals: Arrivals,
    *,
    look: float,
) -> Ending:
    """Take one trial through steps that all have a weight.

    Args:
        rollout: the plan; its rules need no labels and no copies.
        plan: its steps but the last, as `stages` has them.
        signals: of its rules; and `USERS`, where users count once.
        arrivals: of one trial.
        look: seconds between looks.
    """
    tally, looks = _Tally(), dict[str, RuleLook]()
    state = RolloutState(id="simulated-r1", model="simulated")
    begun = Event(revision=1, at=_BEGAN, kind="started", who="simulation")
    state = after(state, begun)
    traffic = RolloutTraffic(
        id=state.id, revision=1, canary="canary", production="production",
        latency_bounds={s.rule: [0.0, 1.0, 2.0] for s in signals if ":" in s.name},
        bins={s.rule: [float(n) for n in range(1, len(s.bins))] for s in signals if s.bins},
    )  # fmt: skip
    done, drawn = 0, _Drawn(signals, arrivals)
    while True:
        now = _BEGAN + done * look
        looks = looked(rollout, tally, looks, now)
        traffic = msgspec.structs.replace(traffic, weight=state.weight)
        standings = judge(rollout, tally, looks=looks, labels={}, traffic=traffic)
        facts = Facts(
            now=now, samples=tally.requests[0], production_samples=tally.requests[1],
            keys=tally.requests[0], last_data=now, acknowledged=True,
        )  # fmt: skip
        said = decide(Look(config=rollout, state=state, standings=standings, facts=facts))
        if said is not None:
            state = after(state, said)
            if state.phase != "progressing" or state.weight >= 100:
                return Ending(done, said)
            drawn.begin(plan[state.step], done)
        drawn.tell(tally, done)
        done += 1


class _Drawn:
    """Events of a step, drawn at its beginning and told look by look."""

    def __init__(self, signals: list[Signal], arrivals: Arrivals) -> None:
        self._signals = signals
        self._arrivals = arrivals
        self._rho = 0.0
        self._began = -1
        self._events: dict[str, tuple[Ints, Ints]] = {}

    def begin(self, stage: Stage, done: int) -> None:
        """The step before has lasted until now."""
        if self._began >= 0:
            self._arrivals.end(np.array([done - self._began]))
        self._rho, self._began = stage.rho, done
        self._arrivals.begin(stage.rho, np.array([done]))
        looks = round(stage.at_most) + 1
        self._events = {s.name: self._arrivals.events(s, 0, looks) for s in self._signals}

    def tell(self, tally: _Tally, done: int) -> None:
        """What happens until the next look; both versions have requests all the time."""
        tally.requests = tally.requests[0] + 1, tally.requests[1] + 1
        for name, (canary, production) in self._events.items():
            at = min(done - self._began, canary.shape[-1] - 1)
            for place in range(len(canary)):
                called = f"{name}:{place}" if len(canary) > 1 else name
                counts = int(canary[place, 0, at]), int(production[place, 0, at])
                tally.add(called, self._rho, *counts)
