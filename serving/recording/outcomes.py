"""What becomes of a label when it comes: decided, not done."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from serving.recording.label import Label

__all__ = ["OUTCOMES", "Outcome", "outcomes"]

Outcome = Literal["joined", "repeated", "corrected", "orphan", "late", "invalid"]
OUTCOMES: Final[tuple[Outcome, ...]] = (
    "joined", "repeated", "corrected", "orphan", "late", "invalid",
)  # fmt: skip
"""`joined`: its prediction is in the log. `repeated`: the same value was there; nothing is kept.
`corrected`: another value was there; this one holds. `orphan`: kept until its prediction appears.
`late`: after the horizon; kept, and not joined. `invalid`: no label at all."""


def outcomes(
    labels: Sequence[Label],
    kept: Mapping[int, float | str],
    made: Mapping[int, float],
    horizon: float,
) -> list[Outcome]:
    """Decide what becomes of labels of one model, in their order.

    Args:
        labels: as they came.
        kept: by place, the value that is kept for the label's key already.
        made: by place, when its prediction was made, seconds since 1970; absent: not in the log.
        horizon: seconds after which a label is late.
    """
    known: dict[tuple[str, str, int, str, int], float | str] = {}
    decided: list[Outcome] = []
    for place, label in enumerate(labels):
        before = known.get(label.key, kept.get(place))
        at = made.get(place)
        if at is None and label.prediction_id:
            at = int(label.prediction_id.partition("~")[0], 16) / 1e3
        if before == label.value:
            decided.append("repeated")
        elif at is not None and label.label_time / 1e6 > at + horizon:
            decided.append("late")
        elif before is not None:
            decided.append("corrected")
        else:
            decided.append("joined" if place in made else "orphan")
        known[label.key] = label.value
    return decided
