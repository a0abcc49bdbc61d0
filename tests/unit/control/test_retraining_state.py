"""What becomes of a request for training, as values."""

from pathlib import Path

import msgspec
import pytest

from serving.control.training.state import (
    GIVE_UP_SECONDS,
    Kept,
    Request,
    after_delivery,
    after_end,
    after_failure,
    next_attempt,
    overdue,
    read_kept,
    write_kept,
)
from serving.drift.retraining import RetrainState

REQUEST = Request(id="a", at=1000.0, asked_by="monitoring", words="why", event="{}")
KEPT = Kept(state=RetrainState(asked=(1000.0,), in_flight=True), request=REQUEST)


def test_pauses_double_up_to_five_minutes() -> None:
    """1, 2, 4 … 300 seconds."""
    assert [next_attempt(n, 0.0) for n in (1, 2, 3, 9, 10, 5000)] == [1, 2, 4, 256, 300, 300]


def test_a_delivery_is_kept() -> None:
    """When, and what was answered."""
    request = after_delivery(KEPT, "a", "202", 1010.0).request

    assert request is not None
    assert (request.stage, request.delivered_at, request.said) == ("delivered", 1010.0, "202")


def test_a_failure_after_a_delivery_changes_nothing() -> None:
    """An answer that was overtaken."""
    delivered = after_delivery(KEPT, "a", "202", 1010.0)

    assert after_failure(delivered, "a", "503", 1011.0) == delivered


@pytest.mark.parametrize("after", [after_delivery, after_failure])
def test_another_requests_answer_changes_nothing(after: object) -> None:
    """Its id is not the last one's."""
    assert callable(after)
    assert after(KEPT, "b", "202", 1010.0) == KEPT


def test_an_end_stops_the_sending() -> None:
    """Whoever says that it is over has heard of it."""
    over = after_end(KEPT, improved=True)

    assert over.request is not None
    assert over.request.stage == "ended"
    assert after_failure(over, "a", "503", 1010.0) == over
    assert after_delivery(over, "a", "202", 1010.0) == over


def test_a_day_of_failures_is_given_up_and_is_no_training_in_vain() -> None:
    """Nothing was trained."""
    late = after_failure(KEPT, "a", "503", 1000.0 + GIVE_UP_SECONDS)

    assert late.request is not None
    assert late.request.stage == "given_up"
    assert not late.state.in_flight
    assert late.state.failures == 0
    assert late.state.asked == (1000.0,)


def test_only_a_training_in_flight_is_overdue() -> None:
    """And only after its time."""
    assert overdue(KEPT, 100.0, 1101.0)
    assert not overdue(KEPT, 100.0, 1100.0)
    assert not overdue(after_end(KEPT, improved=False), 100.0, 9999.0)


def test_it_is_remembered_as_it_was(tmp_path: Path) -> None:
    """Through the disk."""
    path = tmp_path / "retraining" / "m.json"
    assert read_kept(path) == Kept()

    write_kept(path, KEPT)

    assert read_kept(path) == KEPT


def test_a_file_that_is_something_else_is_not_begun_anew(tmp_path: Path) -> None:
    """The budget would be forgotten."""
    (tmp_path / "m.json").write_text("{")

    with pytest.raises(msgspec.DecodeError):
        read_kept(tmp_path / "m.json")
