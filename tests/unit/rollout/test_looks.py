"""What looks leave behind: limits that stay exceeded, and the rate of events."""

from typing import Any

import pytest
from rollout_judge_kit import Counted, plan

from serving.config.schema import RolloutConfig
from serving.rollout.judge import judge
from serving.rollout.looks import RuleLook, looked

CAP = {"name": "cap", "metric": "error_rate", "test": "threshold", "at_most": 0.05}
TAIL = {
    "name": "tail", "metric": "latency", "test": "threshold", "quantile": 0.99, "at_most": 0.08,
}  # fmt: skip


def book(events: int, requests: int, seconds: tuple[float, ...] = ()) -> Counted:
    """What the canary has done."""
    signal = {"cap": {0.05: (events, 0)}, "tail": {0.05: (events, 0)}}
    return Counted(signal=signal, requests=(requests, 0), seconds=([*seconds], []))


def verdicts(config: RolloutConfig, *looks: tuple[float, Counted]) -> list[str]:
    """Of the plan's one rule, at each look."""
    known: dict[str, RuleLook] = {}
    found = []
    for now, counted in looks:
        known = looked(config, counted, known, now)
        [standing] = judge(config, counted, looks=known, labels={})
        found.append(standing.verdict)
    return found


def test_a_limit_is_breached_once_it_has_been_exceeded_for_so_long() -> None:
    """A tenth of the requests fail, for a minute."""
    looks = [(0.0, book(0, 0))] + [(10.0 * n, book(20 * n, 200 * n)) for n in range(1, 9)]

    assert verdicts(plan(CAP), *looks) == ["no_data"] + ["undecided"] * 6 + ["regressed"] * 2


def test_within_the_limit_it_is_ok_and_what_was_long_ago_is_forgotten() -> None:
    """A bad first minute does not weigh on the next ones."""
    looks = [(0.0, book(0, 0)), (30.0, book(50, 200)), (60.0, book(52, 400))]

    assert verdicts(plan(CAP), *looks) == ["no_data", "undecided", "ok"]


def test_requests_that_stop_coming_are_no_breach() -> None:
    """The last value was beyond; an hour without requests does not prove that it stayed so."""
    looks = [(0.0, book(0, 0)), (10.0, book(20, 200)), (3600.0, book(20, 200))]
    again = (3601.0, book(40, 400))

    assert verdicts(plan(CAP), *looks, again) == ["no_data", "undecided", "undecided", "undecided"]


def test_a_quantile_of_the_latest_durations_is_compared() -> None:
    """With requests enough."""
    slow, fast = (0.2,) * 100, (0.01,) * 100
    few = [(0.0, book(0, 0)), (10.0, book(0, 20, slow))]
    many = [*few, (20.0, book(0, 400, fast)), (30.0, book(0, 800, slow))]

    assert verdicts(plan(TAIL), *many) == ["no_data", "no_data", "ok", "undecided"]


def test_agreement_can_have_a_lower_limit() -> None:
    """Of the copies, not of requests."""
    rule = {
        "name": "agree", "metric": "shadow_agreement", "test": "threshold", "at_least": 0.9,
        "sustained": "0s",
    }  # fmt: skip
    copies = [Counted(shadow={"agree": n, "differ": n}) for n in (0, 200)]

    assert verdicts(plan(rule), (0.0, copies[0]), (9.0, copies[1])) == ["no_data", "regressed"]


def paced(*looks: tuple[float, int]) -> RuleLook:
    """Of a rule with so many events at each time."""
    config = plan({"name": "cap", "metric": "error_rate"})
    known: dict[str, RuleLook] = {}
    for now, events in looks:
        known = looked(config, book(events, 9), known, now)
    return known["cap"]


def test_the_rate_is_that_of_the_last_ten_minutes() -> None:
    """An hour at 1 a second and then ten minutes at 3: it is 3."""
    early = [(float(n), n) for n in range(0, 3600, 20)]
    late = [(3600.0 + n, 3600 + 3 * n) for n in range(0, 621, 20)]

    assert paced(*early, *late).rate == pytest.approx(3, rel=0.05)


def test_a_rate_needs_two_looks_and_one_book() -> None:
    """0 where it is not known."""
    assert RuleLook().rate == 0
    assert paced((0.0, 5)).rate == 0
    assert paced((0.0, 500), (60.0, 5)).rate == 0


def test_what_is_remembered_is_bounded() -> None:
    """Four looks a second for twenty minutes: about one mark for five seconds of the last ten."""
    looks: Any = [(n / 4, n) for n in range(4 * 1300)]

    assert len(paced(*looks).pace) <= 130
