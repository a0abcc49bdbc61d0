"""When a training is asked for, and what holds it back."""

import pytest

from serving.drift.retraining import RetrainPolicy, RetrainState, decide, ended, resumed
from serving.drift.verdict import Verdict

HARM = Verdict(level="trigger", reasons=["error is 0.22"], evidence="realised", labels=5000)
WELL = Verdict(level="alert", reasons=["drift"])
POLICY = RetrainPolicy(debounce=600, cooldown=3600, budget=2)
DAY = 86400.0


def lasting(state: RetrainState | None = None, *, at: float = 1000.0) -> RetrainState:
    """A state in which harm has been seen long enough by the time `at`."""
    state, decision = decide(state or RetrainState(), HARM, POLICY, at - POLICY.debounce)
    assert not decision.ask
    return state


def test_harm_has_to_last() -> None:
    """For `debounce` without a break."""
    state, first = decide(RetrainState(), HARM, POLICY, 0)
    state, early = decide(state, HARM, POLICY, 599)
    state, asked = decide(state, HARM, POLICY, 600)

    assert (first.ask, early.ask, asked.ask) == (False, False, True)
    assert early.words == "harm is seen for 599 s; debounce is 600 s"
    assert asked.words == "asked for a training: error is 0.22"
    assert state.asked == (600,)


def test_a_break_starts_the_wait_again() -> None:
    """A spike is not harm that lasts."""
    state, _ = decide(RetrainState(), HARM, POLICY, 0)
    state, _ = decide(state, WELL, POLICY, 300)
    _, decision = decide(state, HARM, POLICY, 700)

    assert not decision.ask


def test_nothing_is_trained_on_broken_data() -> None:
    """And the wait starts again once it is mended."""
    broken = Verdict(
        level="trigger", reasons=["x"], evidence="realised", labels=5000, quality_broken=True
    )

    state, refused = decide(lasting(), broken, POLICY, 1000)
    _, mended = decide(state, HARM, POLICY, 1010)

    assert refused.words.endswith("mend the data first")
    assert not mended.ask


def test_few_labels_ask_for_nothing() -> None:
    """The policy's own bound, whatever the verdict says."""
    few = Verdict(level="trigger", reasons=["x"], evidence="realised", labels=999)

    _, decision = decide(lasting(), few, POLICY, 1000)

    assert decision.words == "999 labels are fewer than min_labels, 1000"


def test_an_estimate_needs_no_labels_and_says_so() -> None:
    """Where labels are structurally late."""
    estimated = Verdict(level="trigger", reasons=["x"], evidence="estimated")

    _, decision = decide(lasting(), estimated, POLICY, 1000)

    assert decision.ask
    assert decision.words.endswith("(evidence=estimated)")


def test_one_training_runs_at_a_time() -> None:
    """Harm goes on being seen while it runs."""
    state, asked = decide(lasting(), HARM, POLICY, 1000)
    _, again = decide(state, HARM, POLICY, 1000 + DAY)

    assert asked.ask
    assert again.words == "a training is running already"


def test_two_requests_keep_their_distance() -> None:
    """`cooldown`, also after a training that improved nothing."""
    state, _ = decide(lasting(), HARM, POLICY, 1000)
    state = lasting(ended(state, improved=False), at=2000)
    _, early = decide(state, HARM, POLICY, 2000)
    _, late = decide(state, HARM, POLICY, 1000 + POLICY.cooldown)

    assert early.words == "cooldown: 2600 s since the last request are left"
    assert late.ask


def test_a_budget_that_is_used_up_asks_for_a_person() -> None:
    """Two in thirty days; when the first is older, there is room again."""
    state = RetrainState(asked=(0.0, DAY))

    _, refused = decide(lasting(state, at=5 * DAY), HARM, POLICY, 5 * DAY)
    _, later = decide(lasting(state, at=30 * DAY), HARM, POLICY, 30 * DAY)

    assert refused.person
    assert "budget is 2" in refused.words
    assert later.ask


def test_three_trainings_in_vain_ask_for_a_person() -> None:
    """Until one has looked."""
    state = RetrainState()
    for _ in range(3):
        state = ended(state, improved=False)

    _, refused = decide(lasting(state), HARM, POLICY, 1000)
    _, after = decide(lasting(resumed(state)), HARM, POLICY, 1000)

    assert refused.person
    assert not refused.ask
    assert after.ask


def test_a_training_that_helped_forgets_those_in_vain() -> None:
    """The count is of trainings in a row."""
    state = ended(ended(RetrainState(), improved=False), improved=True)

    assert state.failures == 0


@pytest.mark.parametrize("verdict", [HARM, WELL])
def test_every_decision_says_why(verdict: Verdict) -> None:
    """Asked or not."""
    assert decide(RetrainState(), verdict, POLICY, 0)[1].words
