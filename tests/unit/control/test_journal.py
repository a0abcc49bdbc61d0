from pathlib import Path

from serving.config.schema import GatewayConfig
from serving.config.snapshot import Snapshot
from serving.control.journal import Entry, Journal


def entry(revision: int) -> Entry:
    """An empty configuration under a revision."""
    snapshot = Snapshot(
        revision=revision, published_at=1.0, author="ann", models={}, views={}, staged={}
    )
    return Entry(
        snapshot=snapshot,
        gateway=GatewayConfig(),
        author="ann",
        at=float(revision),
        action="apply",
        reason="because",
        directory="/etc/demo",
    )


def revisions(journal: Journal) -> list[int]:
    """What the journal holds."""
    return [one.snapshot.revision for one in journal.entries]


def test_a_new_journal_is_empty(tmp_path: Path) -> None:
    """Nothing has been published before the first start."""
    assert Journal(tmp_path / "journal").last is None


def test_the_last_entry_survives_a_restart(tmp_path: Path) -> None:
    """Who, when and why come back with the configuration."""
    journal = Journal(tmp_path)
    journal.append(entry(1))
    journal.append(entry(2))

    assert Journal(tmp_path).last == entry(2)
    assert revisions(Journal(tmp_path)) == [1, 2]


def test_a_torn_line_is_as_if_never_written(tmp_path: Path) -> None:
    """A crash in mid-write costs that line only, also when writing goes on after it."""
    journal = Journal(tmp_path)
    journal.append(entry(1))
    path = tmp_path / "snapshots.jsonl"
    whole = path.read_bytes()
    for cut in (1, 40, len(whole) - 2):
        path.write_bytes(whole + whole[:cut])
        again = Journal(tmp_path)
        assert revisions(again) == [1]
        again.append(entry(2))
        assert revisions(Journal(tmp_path)) == [1, 2]


def test_a_revision_that_goes_back_is_skipped(tmp_path: Path) -> None:
    """A journal put together by hand cannot bring an old revision to the end."""
    journal = Journal(tmp_path)
    journal.append(entry(5))
    journal.append(entry(3))

    assert revisions(Journal(tmp_path)) == [5]


def test_the_journal_stays_bounded(tmp_path: Path) -> None:
    """Old revisions are dropped in one step; the newest are always there."""
    journal = Journal(tmp_path, keep=3)
    for revision in range(1, 20):
        journal.append(entry(revision))
        assert Journal(tmp_path).last == entry(revision)

    assert 3 <= len(Journal(tmp_path).entries) <= 6


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """The journal holds a whole configuration."""
    Journal(tmp_path / "journal").append(entry(1))

    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "journal" / "snapshots.jsonl").stat().st_mode & 0o777 == 0o600
