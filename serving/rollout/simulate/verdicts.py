"""A question about a plan, and its answer: how often it stops, and how soon."""

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.config.schema import RolloutConfig, Rule
from serving.performance.intervals import Interval, wilson
from serving.rollout.simulate.arrivals import Arrivals, Requests
from serving.rollout.simulate.crowd import Crowd
from serving.rollout.simulate.scenarios import Traffic, traffic
from serving.rollout.simulate.stages import Stage, stages
from serving.rollout.simulate.trial import HARD_STOP, INCONCLUSIVE, Trials, run
from serving.rollout.simulate.watch import left_out, watches
from serving.rollout.simulate.world import Canary, Signal, World, signals_of

__all__ = ["Answer", "Question", "answer", "summed"]

_BATCH: Final = 200
_KEY_CELLS: Final = 1_000_000
_HARD_STOP_NAME: Final = "hard stop"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is tried, how often."""

    rollout: RolloutConfig
    world: World = World()
    canary: Canary = Canary()
    scenario: str = "flat"
    keys: int | None = None
    """Users who stay with a version and count once; None: each request is drawn by itself."""

    runs: int = 1000
    seed: int = 1
    look: float = 1.0
    """Seconds between looks."""

    hard_stops: bool = True


class Answer(msgspec.Struct, kw_only=True):
    """What became of all runs. Times are seconds since the new version could have had a request."""

    scenario: str
    runs: int
    stopped: int
    """By a breach or a hard stop."""

    share: float
    """Stopped, of all."""

    low: float
    high: float
    """Ends of the 95 % Wilson interval of `share`."""

    by: dict[str, int]
    """Stopped runs by rule."""

    inconclusive: int
    """Runs in which a step was over without everything that it asks for."""

    completed: int
    median: float | None
    """Time to the stop of the middle run of all; None if fewer than half were stopped."""

    p90: float | None
    """The same of the ninetieth of a hundred."""

    exposed: float | None
    """Requests that the new version had answered by then, the middle run of those stopped."""

    duration: float | None
    """Time to the end of the middle one of the completed runs, without steps of copies."""

    left_out: list[str] = []
    """Rules that could not be tried: see `serving.rollout.simulate.watch.left_out`."""


def answer(question: Question, told: Callable[[int, int], None] | None = None) -> Answer:
    """Try it.

    Args:
        question: what.
        told: is called with how many runs are done, of how many.

    Raises:
        ValueError: there is no such scenario.
    """
    plan = [stage for stage in stages(question.rollout, question.world) if stage.rho > 0]
    span = sum(stage.at_least for stage in plan)
    course = traffic(question.scenario, span, question.look)
    rules = watches(question.rollout, question.world, question.canary)
    batch = _batch(question)
    parts = []
    for begun in range(0, question.runs, batch):
        trials = min(batch, question.runs - begun)
        random = np.random.default_rng([question.seed, begun])
        parts.append(
            run(
                question.rollout,
                plan,
                rules,
                _arrivals(question, course, plan, trials, random),
                errors=_errors(question) if question.hard_stops else None,
                look=question.look,
                trials=trials,
                random=random,
            )
        )
        if told is not None:
            told(begun + trials, question.runs)
    return summed(
        question.scenario,
        [rule.rule.name for rule in rules],
        parts,
        question.look,
        left_out(question.rollout),
    )


def _batch(question: Question) -> int:
    return max(1, min(_BATCH, _KEY_CELLS // (question.keys or 1)))


def _arrivals(
    question: Question, course: Traffic, plan: list[Stage], trials: int, random: np.random.Generator
) -> Arrivals:
    rate = question.world.requests_per_second
    if question.keys is None:
        return Requests(course, rate, trials, random)
    # A user's events are found on the whole course, so it must be as long as a rollout can be.
    longest = round(sum(stage.at_most for stage in plan) / question.look) + 1
    more = max(0, longest - len(course.volume))
    padded = Traffic(
        np.pad(course.volume, (0, more), "edge"),
        np.pad(course.level, (0, more), "edge"),
        course.look,
    )
    return Crowd(padded, rate, question.keys, trials, random)


def _errors(question: Question) -> Signal:
    rule = Rule(name="hard-stop", metric="error_rate")
    (found,) = signals_of(rule, question.world, question.canary)
    return found


def summed(
    scenario: str, names: list[str], parts: list[Trials], look: float, left_out: list[str]
) -> Answer:
    """Many trials as one answer.

    Args:
        scenario: its name.
        names: of the rules, by their numbers in `parts`.
        parts: what became of the trials.
        look: seconds between looks.
        left_out: rules that could not be tried.
    """
    by = np.concatenate([part.by for part in parts])
    seconds = np.concatenate([part.ended for part in parts]) * look
    exposed = np.concatenate([part.exposed for part in parts])
    stopped = (by >= 0) | (by == HARD_STOP)
    count = int(stopped.sum())
    interval: Interval = wilson(count / len(by), len(by))
    times = np.sort(np.where(stopped, seconds, np.inf))
    completed = ~stopped & (by != INCONCLUSIVE)
    named = dict(enumerate(names)) | {HARD_STOP: _HARD_STOP_NAME}
    return Answer(
        scenario=scenario,
        runs=len(by),
        stopped=count,
        share=count / len(by),
        low=interval.low,
        high=interval.high,
        by={name: int((by == k).sum()) for k, name in named.items() if (by == k).any()},
        inconclusive=int((by == INCONCLUSIVE).sum()),
        completed=int(completed.sum()),
        median=_at(times, 0.5),
        p90=_at(times, 0.9),
        exposed=float(np.median(exposed[stopped])) if count else None,
        duration=float(np.median(seconds[completed])) if completed.any() else None,
        left_out=left_out,
    )


def _at(times: NDArray[np.float64], share: float) -> float | None:
    found = float(times[min(len(times) - 1, int(share * len(times)))])
    return found if np.isfinite(found) else None
