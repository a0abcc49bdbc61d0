"""What a log says happened, by what a plan's rules count. Looks are seconds."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.config.schema import RolloutConfig, Rule
from serving.rollout.simulate.arrivals import Floats, Ints
from serving.rollout.simulate.world import Signal

__all__ = ["Happened", "History", "Rows", "first_of_each", "history_of"]

QUANTILES: Final = (0.5, 0.9, 0.99)
_TENTHS: Final = np.arange(1, 10) / 10
_MOST_CLASSES: Final = 100


class Happened(msgspec.Struct, frozen=True):
    """Events in order of time; arrays of shape [events]."""

    look: Ints
    """When, in looks from the beginning."""

    key: Ints
    """Whose, from 0."""

    bin: Ints
    """Which bin, 0 where there are none."""


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """Production's requests in order of time; arrays of shape [requests]."""

    at: Floats
    """Seconds since 1970."""

    key: Ints
    """A number for each user; a request without one has a number of its own."""

    failed: NDArray[np.bool_]
    """It counts as an error of the version."""

    seconds: Floats
    """How long it took."""

    not_fresh: NDArray[np.bool_] | None = None
    """Some feature was not fresh; None: the log does not say."""

    prediction: Floats | None = None
    """The score, or the number of the class; NaN where there is no answer. None: not logged."""

    classes: bool = False
    """Whether `prediction` numbers classes."""


class History(msgspec.Struct, frozen=True):
    """The log, ready to be split."""

    requests: Happened
    events: dict[str, Happened]
    """By signal, each key once."""

    signals: dict[str, list[Signal]]
    """By rule; a rule that the log says nothing of has none."""

    keys: int
    seconds: float
    """From the first request to the last."""


def first_of_each(happened: Happened) -> Happened:
    """Each key's first event alone."""
    _, first = np.unique(happened.key, return_index=True)
    first = np.sort(first)
    return Happened(happened.look[first], happened.key[first], happened.bin[first])


def history_of(rows: Rows, rollout: RolloutConfig) -> History:
    """Sort what happened by what the rules count.

    Args:
        rows: at least one.
        rollout: the plan.
    """
    _, key = np.unique(rows.key, return_inverse=True)
    look = np.floor(rows.at - rows.at[0]).astype(np.int64)
    none = np.zeros(len(look), np.int64)
    signals: dict[str, list[Signal]] = {}
    events: dict[str, Happened] = {}
    for rule in rollout.guardrails.rules:
        signals[rule.name] = []
        for signal, when, bins in _counted(rule, rows):
            place = none if bins is None else bins
            happened = Happened(look[when], key[when], place[when])
            signals[rule.name].append(signal)
            events[signal.name] = first_of_each(happened)
    return History(
        requests=Happened(look, key, none),
        events=events,
        signals=signals,
        keys=int(key.max()) + 1,
        seconds=float(look[-1] + 1),
    )


_Counted = tuple[Signal, NDArray[np.bool_], Ints | None]


def _counted(rule: Rule, rows: Rows) -> Sequence[_Counted]:
    """Signals of a rule, the requests that have them, and their bins."""
    found: Sequence[_Counted] = ()
    if rule.test == "threshold":
        return found
    if rule.metric == "error_rate":
        found = [_one(rule, rule.name, rows.failed)]
    elif rule.metric == "feature_health" and rows.not_fresh is not None:
        found = [_one(rule, rule.name, rows.not_fresh)]
    elif rule.metric == "latency" and rule.exceeds is not None:
        found = [_one(rule, rule.name, rows.failed | (rows.seconds > float(rule.exceeds)))]
    elif rule.metric == "latency":
        bounds = np.unique(np.quantile(rows.seconds, QUANTILES))
        found = [
            _one(rule, f"{rule.name}:{place}", rows.failed | (rows.seconds > bound))
            for place, bound in enumerate(bounds)
        ]
    elif rule.metric == "prediction_shift" and rows.prediction is not None:
        found = _shift(rule, rows.prediction, classes=rows.classes)
    return found


def _one(rule: Rule, name: str, when: NDArray[np.bool_]) -> _Counted:
    share = float(when.mean())
    return Signal(rule.name, name, share, share), when, None


def _shift(rule: Rule, prediction: Floats, *, classes: bool) -> Sequence[_Counted]:
    there = ~np.isnan(prediction)
    if not there.any():
        return ()
    values = np.where(there, prediction, 0.0)
    if classes:
        bins = np.minimum(values.astype(np.int64), _MOST_CLASSES - 1)
    else:
        edges = np.unique(np.quantile(prediction[there], _TENTHS))
        bins = np.searchsorted(edges, values, side="right")
    number = int(bins.max()) + 1
    signal = Signal(rule.name, rule.name, 1.0, 1.0, False, ((1 / number, 1 / number),) * number)
    return [(signal, there, bins)]
