"""The book: each batch once, each key once, whatever order workers are heard in."""

import random
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_book_kit import RULES, Sets, batch, cells, counts_of, errors, random_batch, share, told

from serving.rollout.bitmap import Bitmap, places
from serving.rollout.book import Book
from serving.rollout.counts import BATCHES
from serving.rollout.wire import CELLS, Arms, Cells, Unfolded

NOBODY = Arms(Cells(), Cells())


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 8))
def test_the_counts_are_those_of_plain_sets(seed: int, workers: int, each: int) -> None:
    """Split, repeated and interleaved at random, batches add up as if told once, in that order."""
    rng = random.Random(seed)
    batches = {
        f"w{worker}": [random_batch(number, rng) for number in range(1, each + 1)]
        for worker in range(workers)
    }
    book, sets = Book(RULES), Sets()
    seen = dict.fromkeys(batches, 0)
    while any(seen[worker] < each for worker in batches):
        worker = rng.choice(sorted(batches))
        upto = min(each, seen[worker] + rng.randint(0, 3))
        for one in batches[worker][seen[worker] : upto]:
            sets.add(worker, one)
        again = rng.randint(0, seen[worker])
        seen[worker] = max(seen[worker], upto)
        sent = batches[worker][again:upto]
        rng.shuffle(sent)
        book.fold(told(*sent, worker=worker))

    assert counts_of(book) == +sets.counts
    assert book.folded == {worker: each for worker in batches if each}
    assert book.lost == {}


@given(st.integers(0, 2**32))
def test_sums_do_not_depend_on_which_worker_is_heard_first(seed: int) -> None:
    """Distinct keys over all versions and probabilities are the same in either order."""
    rng = random.Random(seed)
    one, other = (told(*(random_batch(n, rng) for n in (1, 2)), worker=w) for w in "ab")

    def sums(*order: Unfolded) -> list[object]:
        book = Book(RULES)
        for unfolded in order:
            book.fold(unfolded)
        signals = ("errors", "slow:p50", "slow:p99")
        by_signal = [sum(map(sum, book.events(signal).values())) for signal in signals]
        return [by_signal, book.keys, book.requests, sum(book.shadow.values()), book.copies]

    assert sums(one, other) == sums(other, one)


def test_a_batch_that_is_told_twice_counts_once() -> None:
    """Control confirms late, so a worker tells again what is in the book."""
    book = Book(RULES)
    book.fold(told(errors(1, 7)))
    again = book.fold(told(errors(1, 7), errors(2, 8)))

    assert book.events("errors") == {0.25: (2, 0)}
    assert [one.number for one in again.unfolded.batches] == [2]


def test_the_first_event_of_a_key_wins() -> None:
    """Neither a later probability, nor another worker, nor the other version counts it again."""
    book = Book(RULES)
    book.fold(told(errors(1, 7, rho=0.05)))
    book.fold(told(errors(1, 7, rho=0.25), worker="b"))
    book.fold(told(batch(1, share(events={"errors": Arms(Cells(), cells(7))})), worker="c"))

    assert book.events("errors") == {0.05: (1, 0)}


def test_a_key_has_one_bin_of_a_rule_and_every_bound() -> None:
    """Bins share a set of keys; bounds of a latency rule have their own."""
    one = Arms(cells(7), Cells())
    book = Book(RULES)
    events = {"scores:0": one, "scores:1": one, "slow:p50": one, "slow:p90": one}
    book.fold(told(batch(1, share(events=events))))

    assert book.signals("scores") == ["scores:0"]
    assert book.signals("slow") == ["slow:p50", "slow:p90"]


def test_a_key_that_changes_over_is_exposed_once_and_met_both() -> None:
    """It says nothing new about how keys are shared out, but the canary has one more."""
    book = Book(RULES)
    book.fold(told(batch(1, share(0.05, exposed=Arms(Cells(), cells(7))))))
    book.fold(told(batch(2, share(0.25, exposed=Arms(cells(7, 8), Cells())))))

    assert book.exposures() == {0.05: (0, 1), 0.25: (1, 0)}
    assert book.keys == (2, 1)
    assert book.keyed


def test_requests_without_a_key_count_each() -> None:
    """Each was drawn by itself."""
    book = Book(RULES)
    alone = Arms(cells(unkeyed=2), cells(unkeyed=5))
    for number in (1, 2):
        book.fold(told(batch(number, share(exposed=alone, events={"errors": alone}))))

    assert book.events("errors") == {0.25: (4, 10)}
    assert book.exposures() == {0.25: (4, 10)}
    assert book.keys == (4, 10)
    assert not book.keyed


def test_a_number_that_is_skipped_is_lost_and_said() -> None:
    """A worker keeps what is not confirmed, so what is skipped will not come."""
    book = Book(RULES)
    book.fold(told(errors(2, 7)))
    folded = book.fold(told(errors(5, 8), errors(7, 9)))

    assert folded.missing == 3
    assert book.lost == {BATCHES: 4}
    assert book.events("errors") == {0.25: (3, 0)}


def test_what_a_worker_could_not_tell_of_is_said() -> None:
    """By its reasons."""
    book = Book(RULES)
    book.fold(told(batch(1, lost={"full": 3}), batch(2, lost={"full": 1})))

    assert book.lost == {"full": 4}


def test_a_key_is_one_copy_whatever_its_later_ones_say() -> None:
    """Copies are counted all, keys by their first."""
    book = Book(RULES)
    book.fold(told(batch(1, shadow={"agree": cells(1, 2)})))
    book.fold(told(batch(2, shadow={"differ": cells(2, 3)}, copies=9)))

    assert book.shadow == {"agree": 2, "differ": 1}
    assert book.copies == 11


def test_the_latest_durations_are_kept() -> None:
    """Five hundred of each version."""
    book = Book(RULES)
    for number in range(1, 8):
        book.fold(told(batch(number, seconds=[[float(number)] * 100, [0.5]])))

    canary, production = book.seconds
    assert (canary[0], canary[-1], len(canary)) == (3.0, 7.0, 500)
    assert production == [0.5] * 7


def test_the_first_hard_stop_stays() -> None:
    """It says why the rollout ended."""
    book = Book(RULES)
    book.fold(told(batch(1, tripped="5 errors one after another")))
    book.fold(told(batch(1, tripped="half of 20 requests failed"), worker="b"))

    assert book.tripped == "5 errors one after another"


def test_a_rule_is_crowded_when_half_of_all_cells_had_it() -> None:
    """Up to then it is not; other rules never are by it."""
    half = Bitmap(zlib.compress(b"\x0f" * (CELLS // 8)))
    book = Book(RULES, sets={"errors": half})
    book.fold(told(errors(1, 0)))
    assert not book.crowded("errors")

    book.fold(told(errors(2, 4)))
    assert book.crowded("errors")
    assert not book.crowded("slow")
    assert not book.crowded("agree")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"number": 1 << 40}, "numbered from 1"),
        ({"seconds": [[]]}, "canary and those of production"),
        ({"seconds": [[float("nan")], []]}, "0 or more"),
        ({"copies": -1}, "-1 copies"),
        ({"lost": {"full": -2}}, "-2 copies, or losses"),
        ({"shares": [share(0.0)]}, "within 0 and 1, not 0"),
        ({"shares": [share(float("nan"))]}, "within 0 and 1, not nan"),
        ({"shares": [share(requests=(-1, 0))]}, "two numbers"),
        ({"shares": [share(excluded={"fallback": [1]})]}, "two numbers"),
        ({"shadow": {"agree": Cells(b"\0\0\0")}}, "four bytes"),
        ({"shadow": {"agree": cells(CELLS)}}, "no cell 16777216"),
        ({"shadow": {"agree": cells(unkeyed=-1)}}, "-1 requests"),
        ({"shadow": {str(n): cells() for n in range(101)}}, "101 outcomes"),
        ({"shares": [share(events={str(n): NOBODY for n in range(201)})]}, "202 signals"),
    ],
)
def test_what_no_worker_counts_is_refused_whole(change: dict[str, object], says: str) -> None:
    """The batches before it are not added either, and the book is as it was."""
    book = Book(RULES)
    book.fold(told(errors(1, 7)))
    before = msgspec.json.encode(book.counts)

    with pytest.raises(ValueError, match=says):
        book.fold(told(errors(2, 8), msgspec.structs.replace(errors(3, 9), **change)))

    assert msgspec.json.encode(book.counts) == before
    assert book.sets["errors"].filled == 1


def test_counts_are_read_back_from_json() -> None:
    """Probabilities are the same numbers afterwards."""
    book = Book(RULES)
    book.fold(told(errors(1, 7, rho=0.1 + 0.2)))

    assert msgspec.json.decode(msgspec.json.encode(book.counts), type=type(book.counts)) == (
        book.counts
    )


@pytest.mark.parametrize("packed", [b"x", b"x\x9c", Bitmap().packed()[:-1]])
def test_what_is_no_packed_set_is_refused(packed: bytes) -> None:
    """A set that is not whole would count keys again."""
    with pytest.raises(ValueError, match="cells"):
        Bitmap(packed)


def test_a_set_is_read_back_from_what_it_packs() -> None:
    """The same cells, and as many."""
    one = Bitmap()
    one.add(places(cells(*range(0, 4000, 3)).cells))
    again = Bitmap(one.packed())

    assert again.filled == one.filled == 1334
    assert len(again.without(places(cells(0, 1, 3).cells))) == 1
