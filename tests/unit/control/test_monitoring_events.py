"""Changes of level, kept."""

from pathlib import Path

from serving.control.monitoring.events import MonitoringEvent, MonitoringEvents
from serving.drift.verdict import Level


def event(number: int, level: Level = "alert", model: str = "m") -> MonitoringEvent:
    """One of version v1."""
    return MonitoringEvent(
        at=float(number), model=model, version="v1", role="production", level=level, reasons=["why"]
    )


def test_events_and_levels_outlive_a_restart(tmp_path: Path) -> None:
    """Counts begin anew, as counters do."""
    first = MonitoringEvents(tmp_path / "events.jsonl")
    first.record(event(1, "inform"))
    first.record(event(2, "trigger"))
    first.record(event(3, "alert", model="other"))
    second = MonitoringEvents(tmp_path / "events.jsonl")

    assert first.counts["m", "trigger"] == 1
    assert second.newest("m", 10) == [event(2, "trigger"), event(1, "inform")]
    assert second.newest("m", 1) == [event(2, "trigger")]
    assert second.levels["m", "v1", "production"] == "trigger"
    assert not second.counts


def test_the_file_stays_bounded(tmp_path: Path) -> None:
    """Twice as many as are kept, at most."""
    path = tmp_path / "events.jsonl"
    events = MonitoringEvents(path, keep=10)
    for number in range(45):
        events.record(event(number))

    lines = path.read_text().splitlines()
    assert 10 <= len(lines) <= 20
    assert MonitoringEvents(path, keep=10).newest("m", 1) == [event(44)]


def test_a_line_that_a_crash_cut_off_is_skipped(tmp_path: Path) -> None:
    """And does not swallow the next."""
    path = tmp_path / "events.jsonl"
    MonitoringEvents(path).record(event(1))
    with path.open("ab") as file:
        file.write(b'{"at": 2')
    MonitoringEvents(path).record(event(3))

    assert MonitoringEvents(path).newest("m", 10) == [event(3), event(1)]
