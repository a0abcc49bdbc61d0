"""What goes is the old, then the oldest."""

from pathlib import Path

from serving.recording.retention import Kept, Removal, to_remove

DAY = 86400.0


def hour(ends: float, size: int = 100) -> Kept:
    """A file of one hour."""
    return Kept(ends, Path(f"/log/{ends}"), size)


def test_a_file_goes_when_its_youngest_row_is_too_old() -> None:
    """Not a second earlier: retention is a promise in both directions."""
    files = [hour(DAY), hour(2 * DAY)]

    assert to_remove(files, now=31 * DAY, retention=30 * DAY, room=10**9) == []
    assert to_remove(files, now=31 * DAY + 1, retention=30 * DAY, room=10**9) == [
        Removal(Path(f"/log/{DAY}"), 100, "expired")
    ]


def test_the_oldest_go_until_the_rest_fits() -> None:
    """Segments count, and are never chosen."""
    files = [hour(3.0), hour(1.0), hour(2.0)]

    def gone(room: int, live: int = 0) -> list[float]:
        chosen = to_remove(files, now=3.0, retention=DAY, room=room, live=live)
        assert {removal.reason for removal in chosen} <= {"over_size"}
        return [float(removal.path.name) for removal in chosen]

    assert gone(300) == []
    assert gone(299) == [1.0]
    assert gone(150) == [1.0, 2.0]
    assert gone(300, live=50) == [1.0]
    assert gone(0, live=10**6) == [1.0, 2.0, 3.0]
