from pathlib import Path

import msgspec
from msgspec.structs import replace

from serving.config.schema import GatewayConfig
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import enc_hook
from serving.control.publishing.journal import Entry, Journal


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
    """What the journal holds, by its own account and on the disk."""
    read = [one.snapshot.revision for one in journal.newest(10_000)]
    assert read == journal.revisions
    return read


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
    journal = Journal(tmp_path, keep=20)
    for revision in range(1, 60):
        journal.append(entry(revision))

        kept = revisions(journal)
        assert kept == list(range(revision - len(kept) + 1, revision + 1))
        assert min(revision, 20) <= len(kept) <= 22
        assert revisions(Journal(tmp_path)) == kept
        assert Journal(tmp_path).last == journal.last == entry(revision)


def test_a_thousand_revisions_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    """And no more than a tenth above that is ever on the disk."""
    line = msgspec.json.encode(entry(1), enc_hook=enc_hook)
    (tmp_path / "snapshots.jsonl").write_bytes(
        b"".join(
            line.replace(b'"revision":1,', b'"revision":%d,' % revision) + b"\n"
            for revision in range(1, 1101)
        )
    )
    journal = Journal(tmp_path)
    assert len(journal.revisions) == 1100
    journal.append(entry(1101))

    assert journal.revisions == list(range(102, 1102))
    assert (tmp_path / "snapshots.jsonl").read_bytes().count(b"\n") == 1000


def test_the_newest_entries_are_read_from_the_disk_in_order(tmp_path: Path) -> None:
    """A history shows a few of them."""
    journal = Journal(tmp_path)
    for revision in (1, 2, 3):
        journal.append(entry(revision))

    assert journal.newest(2) == [entry(2), entry(3)]
    assert journal.newest(0) == []


def test_a_revision_adopted_over_ours_takes_its_place(tmp_path: Path) -> None:
    """Another writer was faster with the same number; its configuration is what counts."""
    journal = Journal(tmp_path)
    journal.append(entry(1))
    theirs = replace(entry(1), author="bob", action="adopt")
    journal.append(theirs)

    assert journal.newest(9) == Journal(tmp_path).newest(9) == [theirs]
    assert Journal(tmp_path).last == theirs


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    """The journal holds a whole configuration."""
    Journal(tmp_path / "journal").append(entry(1))

    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "journal" / "snapshots.jsonl").stat().st_mode & 0o777 == 0o600
