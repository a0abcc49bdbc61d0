"""What a rule makes of counts, at many looks of many trials at once.

The e-values are those of `serving.rollout.evidence`, in its forms for arrays; here is only which
of them a rule averages, and at which looks anything can have changed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.config.schema import RolloutConfig, Rule
from serving.rollout.evidence import relative_risk
from serving.rollout.evidence.first_events import ratio_of_users
from serving.rollout.evidence.power import shared
from serving.rollout.judge import deciding
from serving.rollout.simulate.arrivals import Floats, Ints
from serving.rollout.simulate.world import USERS, Canary, Signal, World, signals_of

__all__ = ["NEVER", "Block", "Counted", "Watch", "block", "left_out", "users_of", "watches"]

NEVER: Final = np.iinfo(np.int64).max // 2
"""A look that does not come."""

Counted = Mapping[str, Mapping[float, tuple[Ints, Ints]]]
"""By signal and probability of the canary: its events and production's, shape [bins, …]."""


class Watch(msgspec.Struct, frozen=True):
    """One rule, ready to look."""

    rule: Rule
    signals: Sequence[Signal]
    bound: float
    """Natural logarithm of the e-value that proves a breach."""

    proven: float
    """Natural logarithm of the e-value that proves `prove`."""

    def breach(self, counted: Counted) -> Floats:
        """Logarithm of the evidence for a breach: an array of the counts' shape, without bins."""
        null = self.rule.tolerance or 1.0
        parts = []
        for signal in self.signals:
            counts = counted[signal.name]
            parts += list(relative_risk.log_breach_array(counts, null))
            if self.rule.metric == "prediction_shift":
                parts += list(relative_risk.log_proof_array(counts, 1 / null))
        return _averaged(parts)

    def proof(self, counted: Counted, users: Floats | None) -> Floats:
        """Logarithm of the evidence that `prove` is not reached; the least of all signals.

        Args:
            counted: events.
            users: of production, who have met it, in the counts' shape without bins; None: each
                request counts by itself.
        """
        prove = self.rule.prove
        assert prove is not None
        parts: list[Floats] = []
        for signal in self.signals:
            counts = counted[signal.name]
            if self.rule.metric == "prediction_shift":
                parts += list(relative_risk.log_proof_array(counts, prove))
                parts += list(relative_risk.log_breach_array(counts, 1 / prove))
            else:
                had = np.add.reduce([pair[1] for pair in counts.values()])
                null = prove if users is None else _of_users(prove, had, users)
                parts += list(relative_risk.log_proof_array(counts, null))
        found: Floats = np.minimum.reduce(parts)
        return found

    def first_breach(self, before: Counted, rho: float, now: Mapping[str, "Block"]) -> Ints:
        """The look of a block at which a breach is proven first, shape [trials]; `NEVER`: none.

        Evidence for more events of the canary only grows where it has one, so other looks are
        passed over; that of a shift can grow with either version's.

        Args:
            before: counts of the steps before, shape [bins, trials].
            rho: probability of the canary in this one.
            now: by signal, the counts of the block.
        """
        both = self.rule.metric == "prediction_shift"
        blocks = [now[signal.name] for signal in self.signals]
        moved = np.add.reduce([block.moved(both=both) for block in blocks])
        trial, look = np.nonzero(moved)
        first: Ints = np.full(blocks[0].canary.shape[1], NEVER)
        if len(trial):
            counted = {
                signal.name: {
                    **{
                        level: (pair[0][:, trial], pair[1][:, trial])
                        for level, pair in before.get(signal.name, {}).items()
                    },
                    rho: block.at(trial, look),
                }
                for signal, block in zip(self.signals, blocks, strict=True)
            }
            over = self.breach(counted) >= self.bound
            np.minimum.at(first, trial[over], look[over])
        return first

    def proofs(
        self, before: Counted, rho: float, now: Mapping[str, "Block"], since: int
    ) -> NDArray[np.bool_]:
        """Whether `prove` is met at each look of a block from `since` on, shape [trials, looks]."""
        names = [signal.name for signal in self.signals]
        counted = {
            name: {
                **{
                    level: (pair[0][:, :, None], pair[1][:, :, None])
                    for level, pair in before.get(name, {}).items()
                },
                rho: (now[name].canary[:, :, since:], now[name].production[:, :, since:]),
            }
            for name in [*names, *([USERS] if USERS in now else ())]
        }
        met: NDArray[np.bool_] = self.proof(counted, users_of(counted)) >= self.proven
        return met


class Block(msgspec.Struct, frozen=True):
    """Counts of a signal since its step began, look by look: shape [bins, trials, looks]."""

    canary: Ints
    production: Ints
    canary_new: Ints
    production_new: Ints

    def moved(self, *, both: bool) -> Ints:
        """What is new at each look, shape [trials, looks]."""
        new = self.canary_new + self.production_new if both else self.canary_new
        found: Ints = new.sum(0)
        return found

    def at(self, trial: Ints, look: Ints) -> tuple[Ints, Ints]:
        """Counts at some looks, shape [bins, looks]."""
        return self.canary[:, trial, look], self.production[:, trial, look]


def block(start: tuple[Ints, Ints], new: tuple[Ints, Ints]) -> Block:
    """Counts of a block, from those before it, shape [bins, trials], and what is new."""
    canary, production = (
        base[:, :, None] + np.cumsum(more, axis=-1) for base, more in zip(start, new, strict=True)
    )
    return Block(canary, production, *new)


def watches(rollout: RolloutConfig, world: World, canary: Canary) -> list[Watch]:
    """The rules that decide and whose events can be made up."""
    guardrails, rules = rollout.guardrails, deciding(rollout)
    bound = -math.log(shared(guardrails.alpha, len(rules)))
    proven = math.log(1 / guardrails.alpha)
    return [
        Watch(rule, signals_of(rule, world, canary), bound, proven)
        for rule in rules
        if signals_of(rule, world, canary)
    ]


def left_out(rollout: RolloutConfig) -> list[str]:
    """Rules that are not looked at: they need labels, copies or a fixed limit, or are dry runs.

    Those that share `alpha` keep their part of it.
    """
    seen = {watch.rule.name for watch in watches(rollout, World(), Canary())}
    return [rule.name for rule in rollout.guardrails.rules if rule.name not in seen]


def users_of(counted: Counted) -> Floats | None:
    """Users who have met production; None where nobody counts them."""
    if USERS not in counted:
        return None
    found: Floats = np.asarray(sum(pair[1][0] for pair in counted[USERS].values()), np.float64)
    return found


def _of_users(prove: float, had: Ints, users: Floats) -> Floats:
    """The ratio to refute: `serving.rollout.evidence.first_events`, of arrays."""
    share = np.where(users > 0, had / np.maximum(users, 1.0), 1.0)
    found: Floats = np.vectorize(ratio_of_users, otypes=[np.float64])(prove, share)
    return found


def _averaged(logs: Sequence[Floats]) -> Floats:
    """Logarithm of the mean of e-values, element by element."""
    if len(logs) == 1:
        return logs[0]
    every = np.stack(logs)
    top = every.max(0)
    found: Floats = np.log(np.exp(every - top).mean(0)) + top
    return found
