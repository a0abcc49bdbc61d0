"""What of a prediction log is asked again."""

from pathlib import Path
from typing import Any

import pytest
from parquet_log import START, row, write_log

from serving.loadtest.log_replay import CannotReplay, Recorded, read_log
from serving.loadtest.scenario import LogReplay


def recorded(log: Path, rows: list[dict[str, Any]], **options: Any) -> Recorded:
    """The requests that a replay of these rows sends."""
    write_log(log, rows)
    return read_log(log, LogReplay(folder=str(log), model="demo", **options), ["person_id"])


def batch(at: float, number: int, people: list[int]) -> list[dict[str, Any]]:
    """The rows of one request."""
    return [
        row(at, number, row=place, **{"entity.person_id": person})
        for place, person in enumerate(people)
    ]


def test_requests_keep_their_order_their_rows_and_their_distances(tmp_path: Path) -> None:
    """A request of three people is one request."""
    rows = [*batch(START + 2, 2, [7, 8, 9]), *batch(START, 1, [5]), *batch(START + 2.5, 3, [5])]
    found = recorded(tmp_path, rows)

    assert [float(at) - START for at in found.times] == [0.0, 2.0, 2.5]
    assert found.rows.tolist() == [1, 3, 1]
    assert found.first.tolist() == [0, 1, 4]
    assert found.keys["person_id"] == [5, 7, 8, 9, 5]


def test_a_shadows_copy_is_no_request(tmp_path: Path) -> None:
    """The gateway made it, and will make it again."""
    rows = [row(START, 1), row(START, 1, version="v2", role="shadow"), row(START + 1, 2)]

    assert len(recorded(tmp_path, rows).times) == 2


def test_what_was_refused_is_asked_again_if_its_keys_are_known(tmp_path: Path) -> None:
    """Overload is load; a request that could not even be read is left out."""
    refused = {"prediction_id": "", "code": "RESOURCE_EXHAUSTED"}
    unread = {"prediction_id": "", "code": "INVALID_ARGUMENT", "entity.person_id": None}
    rows = [
        row(START, 1),
        row(START + 1, 2, **refused),
        row(START + 2, 3, **refused),
        row(START + 3, 4, **unread),
    ]
    found = recorded(tmp_path, rows)

    assert found.keys["person_id"] == [1, 2, 3]
    assert found.rows.tolist() == [1, 1, 1]


def test_an_answered_request_without_its_key_cannot_be_asked_again(tmp_path: Path) -> None:
    """It brought its features itself; leaving it out in silence would be another load."""
    rows = [row(START, 1), row(START + 1, 2, **{"entity.person_id": None})]

    with pytest.raises(CannotReplay, match=r"1 of 2 rows of the log have no `person_id`"):
        recorded(tmp_path, rows)


def test_a_log_is_cut_off_between_requests(tmp_path: Path) -> None:
    """A request of which only some rows fit is none that anybody sent."""
    rows = [*batch(START, 1, [1, 2]), *batch(START + 1, 2, [3, 4, 5])]

    assert recorded(tmp_path, rows, at_most=4).rows.tolist() == [2]


def test_times_bound_what_is_replayed(tmp_path: Path) -> None:
    """Both ends count; nothing in between is an error."""
    rows = [row(START + at, at) for at in range(4)]
    found = recorded(tmp_path, rows, since="2026-01-01T00:00:01", until="2026-01-01T00:00:02")

    assert found.keys["person_id"] == [1, 2]
    for since in ("2026-01-01T00:00:30", "2027-01-01T00:00:00"):
        with pytest.raises(CannotReplay, match="no request of `demo` in that time"):
            recorded(tmp_path, rows, since=since)
