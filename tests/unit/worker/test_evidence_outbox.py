"""What waits for control, and what is given up."""

import pytest

from serving.rollout.wire import Arms, Batch, Cells, Share, decode_unfolded
from serving.worker.evidence import outbox as evidence_outbox
from serving.worker.evidence.outbox import LONGEST_SECONDS, Outbox


def batch(number: int, size: int = 0) -> Batch:
    """A batch of some bytes."""
    none = Arms(Cells(), Cells())
    exposed = Arms(Cells(bytes(4 * size)), Cells())
    return Batch(number, 0.0, 2, [Share(0.5, [1, 2], exposed, {"errors": none}, {})], {}, [[], []])


def numbers(outbox: Outbox) -> list[int]:
    """What stands in the store."""
    return [one.number for one in decode_unfolded(outbox.body()[0]).batches]


def test_what_is_written_is_what_control_reads() -> None:
    """Batches that were encoded one by one make an `Unfolded`."""
    outbox = Outbox("n/w", "n/w:1")
    first = batch(1, 3)
    outbox.put(first, 3, 0.0)

    read = decode_unfolded(outbox.body(ended=True)[0])
    assert (read.worker, read.incarnation, read.ended) == ("n/w", "n/w:1", True)
    assert read.batches == [first]


def test_only_what_is_confirmed_goes() -> None:
    """A confirmation takes everything up to its number, and an older one nothing."""
    outbox = Outbox("n/w", "n/w:1")
    for number in (1, 2, 3):
        outbox.put(batch(number), 3 * number, 0.0)

    outbox.confirm(2)
    assert numbers(outbox) == [3]
    outbox.confirm(1)
    assert numbers(outbox) == [3]
    outbox.confirm(3)
    assert (len(outbox), outbox.bytes) == (0, 0)


def test_the_oldest_are_given_up_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound in bytes; how many requests that were is said in the next batch."""
    monkeypatch.setattr(evidence_outbox, "MOST_BYTES", 1000)
    outbox = Outbox("n/w", "n/w:1")
    for number in (1, 2, 3):
        outbox.put(batch(number, 150), 7 * number, 0.0)

    assert outbox.put(batch(4), 22, 0.0) == {"too_many": 7}
    assert numbers(outbox) == [3, 4]
    assert decode_unfolded(outbox.body()[0]).batches[-1].lost == {"too_many": 7}


def test_more_than_control_reads_is_told_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not told is not the end; it follows as the first is confirmed."""
    monkeypatch.setattr(evidence_outbox, "UNFOLDED_BYTES", 1000 + evidence_outbox._SPARE_BYTES)
    outbox = Outbox("n/w", "n/w:1")
    for number in (1, 2, 3):
        outbox.put(batch(number, 100), number, 0.0)
    assert numbers(outbox) == [1, 2]
    assert outbox.body()[1:] == (2, 2)
    assert not decode_unfolded(outbox.body(ended=True)[0]).ended

    outbox.confirm(2)
    assert numbers(outbox) == [3]
    assert decode_unfolded(outbox.body(ended=True)[0]).ended


def test_what_is_too_old_is_given_up() -> None:
    """After an hour without control nobody decides by it any more."""
    outbox = Outbox("n/w", "n/w:1")
    outbox.put(batch(1), 5, 0.0)
    outbox.put(batch(2), 9, 10.0)

    assert outbox.put(batch(3), 12, LONGEST_SECONDS + 5) == {"too_old": 5}
    assert numbers(outbox) == [2, 3]
