"""How often harm is seen where there is none, and how soon where there is some.

    python loadtests/harm_rates.py         # about two minutes

A model whose error is 0.17, 1,000 labels a window, a baseline of the first 1,000, `tolerance` 0.02.
`means alone`: the growth of the mean and its interval, as a window ends. `with the stream`: and
ADWIN has seen a change for the worse, as the verdict asks for. 40 streams of 300 windows that are
steady; then 40 of which the error grows after 60 windows. Seeds are fixed.
"""

from typing import Final

import numpy as np

from serving.drift.harm import LossStream, follow
from serving.drift.verdict import Evidence, Loss, Tolerances, judge

LABELS: Final = 1000
STREAMS: Final = 40
ERROR: Final = 0.17


def triggers(errors: list[float], seed: int) -> tuple[list[int], list[int]]:
    """Windows at which there is harm, by means alone and with the stream."""
    chance = np.random.default_rng(seed)
    first = (chance.random(LABELS) < ERROR).astype(float)
    stream: LossStream | None = follow(None, first.tolist(), "error", 0.02)
    alone, confirmed = [], []
    for number, error in enumerate(errors):
        losses = (chance.random(LABELS) < error).astype(float)
        stream = follow(stream, losses.tolist(), "error", 0.02)
        loss = Loss(
            metric="error",
            rows=LABELS,
            now=float(losses.mean()),
            error=float(losses.std() / LABELS**0.5),
            reference=float(first.mean()),
            reference_error=float(first.std() / LABELS**0.5),
        )
        limits = Tolerances(tolerance=0.02, min_labels=LABELS)
        if judge(Evidence(realised=loss), limits).level == "trigger":
            alone.append(number)
            if stream is not None and stream.worse:
                confirmed.append(number)
    return alone, confirmed


def main() -> None:
    """Print two tables."""
    steady = [triggers([ERROR] * 300, seed) for seed in range(STREAMS)]
    for place, name in enumerate(("means alone", "with the stream")):
        windows = sum(len(one[place]) for one in steady)
        streams = sum(bool(one[place]) for one in steady)
        print(
            f"steady, {name}: harm in {windows} of {300 * STREAMS} windows, "
            f"in {streams} of {STREAMS} streams"
        )
    for error in (0.19, 0.20, 0.22, 0.27):
        grown = [triggers([ERROR] * 60 + [error] * 60, 1000 + seed) for seed in range(STREAMS)]
        for place, name in enumerate(("means alone", "with the stream")):
            found = [[n - 59 for n in one[place] if n >= 60] for one in grown]
            first = sorted(each[0] for each in found if each)
            median = first[len(first) // 2] if first else None
            print(
                f"{ERROR} -> {error}, {name}: seen in {len(first)} of {STREAMS}, "
                f"median after {median} windows"
            )


if __name__ == "__main__":
    main()
