"""ADWIN over single losses, kept between two looks."""

import msgspec
import numpy as np
import pytest

from serving.drift.harm import LossStream, bounded, follow
from serving.drift.verdict import Evidence, Loss, Tolerances, judge


def coins(share: float, many: int, seed: int) -> list[float]:
    """Losses of 0 and 1."""
    return (np.random.default_rng(seed).random(many) < share).astype(float).tolist()


def test_a_steady_stream_is_not_worse() -> None:
    """Ten thousand losses around one mean."""
    stream = follow(None, coins(0.2, 10_000, 1), "error", 0.02)

    assert stream is not None
    assert stream.losses == 10_000
    assert not stream.worse


def test_a_stream_that_gets_worse_and_better_again_is_told_both_times() -> None:
    """The last change counts."""
    worse = follow(None, coins(0.2, 3000, 1) + coins(0.5, 1000, 2), "error", 0.02)
    better = follow(worse, coins(0.2, 3000, 3), "error", 0.02)

    assert worse is not None
    assert worse.worse
    assert worse.change is not None
    assert worse.change.grew
    assert better is not None
    assert not better.worse


def test_in_parts_and_through_json_it_is_the_same() -> None:
    """A restart between two looks changes nothing."""
    losses = coins(0.2, 3000, 1) + coins(0.5, 1000, 2)
    whole = follow(None, losses, "error", 0.02)
    part: LossStream | None = None
    for start in range(0, len(losses), 700):
        part = follow(part, losses[start : start + 700], "error", 0.02)
        assert part is not None
        part = msgspec.json.decode(msgspec.json.encode(part), type=LossStream)

    assert part is not None
    assert whole is not None
    assert (part.worse, part.losses) == (whole.worse, whole.losses)
    assert part.change == whole.change


def test_nothing_new_changes_nothing() -> None:
    """Not even where there was nothing before."""
    assert follow(None, [], "error", 0.02) is None


@pytest.mark.parametrize("metric", ["error", "brier", "log_loss", "absolute_error"])
def test_losses_are_on_the_scale_of_the_bound(metric: str) -> None:
    """0 stays 0, order stays, and 1 is not passed."""
    largest = {"log_loss": 15.94, "absolute_error": 1e9}.get(metric, 1.0)
    low, middle, high = (bounded(one, metric, 0.02) for one in (0.0, largest / 2, largest))

    assert low == 0
    assert low < middle < high <= 1


def grown(rows: int = 5000) -> Loss:
    """A loss beyond its tolerance and beyond chance."""
    return Loss(metric="error", rows=rows, now=0.3, error=0.005, reference=0.2)


def test_growth_without_a_change_in_the_stream_is_an_alert() -> None:
    """Of many looks at means one is wrong some day."""
    verdict = judge(Evidence(realised=grown(), change_seen=False), Tolerances())

    assert verdict.level == "alert"
    assert "show no change yet" in verdict.reasons[0]


@pytest.mark.parametrize("change_seen", [True, None])
def test_growth_with_a_change_is_a_trigger(change_seen: bool | None) -> None:
    """Also where nobody watches single losses."""
    verdict = judge(Evidence(realised=grown(), change_seen=change_seen), Tolerances())

    assert verdict.level == "trigger"
    assert verdict.evidence == "realised"


def test_few_labels_are_no_trigger_whatever_the_stream_says() -> None:
    """`min_labels` comes first."""
    verdict = judge(Evidence(realised=grown(10), change_seen=True), Tolerances(min_labels=1000))

    assert verdict.level == "alert"
    assert "10 labels are fewer than min_labels" in verdict.reasons[0]
