"""Four years of the census, replayed through everything that decides on a request for training.

    python loadtests/retraining_replay.py              # about a minute
    python loadtests/retraining_replay.py --order file # in the survey's own order

People of 2015 are what the demo's model was trained on; those of 2016 to 2018 have changed. The
model does as well on them as before, so drift is told and nothing is asked for. Then the same
stream with labels that turn over for some people from the middle on: harm without drift.

One person a second and a half; labels come with the windows; windows of two hours (4,800 people),
`min_labels` 1,000, `tolerance` 0.02, as `RetrainConfig` has them. Only decisions are replayed:
bins, report, ADWIN, baseline, verdict, retraining. Nothing is sent.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

DEMO: Final = Path(__file__).parents[1] / "configs" / "demo"
sys.path.insert(0, str(DEMO))

import census  # noqa: E402 - a script of the demo, found by the line above

from serving.config.frozen_bins import Reference, decode_reference  # noqa: E402
from serving.config.schema import RetrainConfig  # noqa: E402
from serving.control.labels.joiner_orders import LossesTold, VersionLosses  # noqa: E402
from serving.control.monitoring.harm_state import Known, advance  # noqa: E402
from serving.drift.bins import compile_bins  # noqa: E402
from serving.drift.report import DriftOptions, Window, report  # noqa: E402
from serving.drift.retraining import RetrainPolicy, RetrainState, decide  # noqa: E402
from serving.drift.verdict import Evidence, Tolerances, judge  # noqa: E402
from serving.performance.counts import Moments  # noqa: E402
from serving.performance.losses import LossWindow  # noqa: E402

SECONDS: Final = 1.5
WINDOW: Final = 7200.0
PEOPLE: Final = int(WINDOW / SECONDS)
IMPORTANT: Final = frozenset(("AGEP", "SCHL", "RELP", "DIS"))
SCORE: Final = "probabilities[1]"


class Stream(NamedTuple):
    """People in the order in which they are asked about. Shapes [n, 16], [n], [n], [n]."""

    features: NDArray[np.float32]
    score: NDArray[np.float32]
    decision: NDArray[np.int64]
    truth: NDArray[np.int64]


class Outcome(NamedTuple):
    """What a replay came to."""

    windows: int
    levels: Counter[str]
    asked: list[int]
    """Windows at which a training was asked for."""
    changes: int
    """For the worse, seen by ADWIN."""
    growth: list[float]


def stream(order: str, chance: np.random.Generator) -> tuple[Stream, int]:
    """Everybody, year by year, scored by the demo's v1; and how many are of 2015."""
    people = census.read()
    rows = []
    for year in (2015, 2016, 2017, 2018):
        of_year = np.flatnonzero(people.year == year)
        rows.append(chance.permutation(of_year) if order == "shuffled" else of_year)
    first, rows_all = len(rows[0]), np.concatenate(rows)
    session = onnxruntime.InferenceSession(DEMO / "artifacts" / "employment-v1.onnx")
    features = people.features[rows_all]
    label, probabilities = session.run(["label", "probabilities"], {"X": features})
    return Stream(features, probabilities[:, 1], label, people.employed[rows_all]), first


def windows(one: Stream, reference: Reference) -> Iterator[tuple[Window, LossWindow, list[float]]]:
    """Each window's bin counts, its losses together, and one by one."""
    bins = {name: compile_bins(column) for name, column in reference.columns.items()}
    places = {name: at for at, name in enumerate(census.FEATURES)}
    for number in range(len(one.truth) // PEOPLE):
        rows = slice(number * PEOPLE, (number + 1) * PEOPLE)
        columns: dict[str, Any] = {name: one.features[rows, at] for name, at in places.items()}
        columns |= {"label": one.decision[rows], SCORE: one.score[rows]}
        counted = {
            name: np.stack([bins[name].count(part) for part in np.array_split(column, 30)])
            for name, column in columns.items()
            if name in bins
        }
        start = number * WINDOW
        losses = (one.decision[rows] != one.truth[rows]).astype(float)
        yield (
            Window(start=start, end=start + WINDOW, blocks=counted),
            LossWindow(start=start, end=start + WINDOW, losses=Moments.of(losses)),
            losses.tolist(),
        )


def replay(one: Stream, reference: Reference, retrain: RetrainConfig) -> Outcome:
    """Look at the end of every window, and once more when the debounce is over."""
    policy = RetrainPolicy(min_labels=retrain.min_labels)
    limits = Tolerances(tolerance=retrain.tolerance, min_labels=retrain.min_labels, score=SCORE)
    options = DriftOptions(important=IMPORTANT, score=SCORE)
    known, state = Known(terms=""), RetrainState()
    counted: list[Window] = []
    lost: list[LossWindow] = []
    levels: Counter[str] = Counter()
    asked, growth, changes, worse = [], [], 0, False
    for number, (window, loss, single) in enumerate(windows(one, reference)):
        counted.append(window)
        lost.append(loss)
        told = VersionLosses(
            version="v1", digest="", windows=lost, due=0, coverage=None, single=single
        )
        answer = LossesTold(versions=[told], newest=number, read=number, more=False)
        known, found = advance(known, answer, {"v1": ""}, retrain, window.end)
        harm = found["v1"]
        changes += harm.change_seen and not worse
        worse = harm.change_seen
        if harm.realised is not None:
            growth.append(harm.realised.growth)
        verdict = judge(
            Evidence(
                drift=report(reference, counted[-48:], options),
                realised=harm.realised,
                change_seen=harm.change_seen,
            ),
            limits,
        )
        levels[verdict.level] += 1
        for later in (0.0, policy.debounce):
            state, decision = decide(state, verdict, policy, window.end + later)
            if decision.ask:
                asked.append(number)
    return Outcome(len(counted), levels, asked, changes, growth)


def flipped(one: Stream, share: float, start: int, chance: np.random.Generator) -> Stream:
    """From a row on, some people's labels are the other way round."""
    turned = chance.random(len(one.truth)) < share
    turned[:start] = False
    return one._replace(truth=np.where(turned, 1 - one.truth, one.truth))


def main() -> None:
    """Print a line a replay."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--order", choices=["shuffled", "file"], default="shuffled")
    parser.add_argument("--seeds", type=int, default=3, help="orders of people tried [default: 3]")
    arguments = parser.parse_args()
    reference = decode_reference((DEMO / "artifacts" / "employment-reference.json").read_bytes())
    retrain = msgspec.convert({"metric": "error"}, RetrainConfig)
    print("labels turned  seed  windows  levels  worse by ADWIN  largest growth  asked at window")
    for seed in range(arguments.seeds if arguments.order == "shuffled" else 1):
        chance = np.random.default_rng(seed)
        people, first = stream(arguments.order, chance)
        middle = first + (len(people.truth) - first) // 2
        for share in (0.0, 0.05, 0.1, 0.3):
            outcome = replay(flipped(people, share, middle, chance), reference, retrain)
            levels = ", ".join(f"{name} {many}" for name, many in sorted(outcome.levels.items()))
            print(
                f"{share:13.0%}  {seed:4}  {outcome.windows:7}  {levels}  {outcome.changes}  "
                f"{max(outcome.growth):.4f}  {outcome.asked} (turned from {middle // PEOPLE})"
            )


if __name__ == "__main__":
    main()
