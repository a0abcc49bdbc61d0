"""Counting against the same thing done slowly, one request at a time."""

import random
from collections import Counter
from typing import Any

import msgspec
import numpy as np
from evidence_kit import model_of, told, traffic_of

from serving.rollout.wire import cell_of, scramble_of
from serving.worker.evidence.counting import Counting
from serving.worker.evidence.faults import CLIENT_DEADLINE, CLIENT_GONE, ERROR
from serving.worker.evidence.notes import DEFAULTED, FAULTY, KEYLESS, UNWELL, Notes
from serving.worker.evidence.rules import compile_plan
from serving.worker.evidence.signals import Told

SCRAMBLE = scramble_of("m-r1")
ARMS = ("canary", "production")
Note = tuple[Any, ...]


RULES: list[dict[str, Any]] = [
    {"name": "errors", "metric": "error_rate"},
    {"name": "slow", "metric": "latency", "exceeds": "50ms"},
    {"name": "pace", "metric": "latency"},
    {"name": "scores", "metric": "prediction_shift"},
    {"name": "features", "metric": "feature_health"},
]
TRAFFIC = traffic_of(latency_bounds={"pace": [0.01, 0.03]}, bins={"scores": [0.25, 0.5, 0.75]})


def counting_of(prediction: dict[str, Any] | None = None, **traffic: Any) -> Counting:
    """A rule of every kind that workers count for."""
    rolled = msgspec.structs.replace(TRAFFIC, **traffic)
    return Counting(compile_plan(model_of(RULES, prediction), rolled), SCRAMBLE)


def left(notes: list[Note]) -> Notes:
    """As requests leave them."""
    made = Notes()
    for number, (place, arm, seconds, flags, fault, value) in enumerate(notes):
        made.place(place)
        made.took(seconds)
        made.kinds.append(arm | flags)
        made.value(value)
        if fault is not None:
            made.faults.append((number, fault))
    return made


def some_notes(draw: random.Random, count: int) -> list[Note]:
    """Requests of few keys, so that most come again, with everything that can be the matter."""
    made: list[Note] = []
    for _ in range(count):
        key = draw.randrange(60)
        place = random.Random(key).getrandbits(64)
        flags, fault, said = 0, None, draw.random()
        if draw.random() < 0.2:
            place, flags = 0, flags | KEYLESS
        if draw.random() < 0.15:
            fault = draw.choice([ERROR, CLIENT_DEADLINE, CLIENT_GONE])
            flags |= FAULTY
        elif draw.random() < 0.2:
            flags |= UNWELL | (DEFAULTED if draw.random() < 0.5 else 0)
        arm = draw.randrange(2) if flags & KEYLESS else key % 2
        outputs: Any = None if fault or draw.random() < 0.1 else said
        made.append((place, arm, draw.random() / 10, flags, fault, outputs))
    return made


class Slowly:
    """The same rules, one request at a time."""

    def __init__(self) -> None:
        self.known: set[Any] = set()
        self.told: dict[str, Counter[Any]] = {}
        self.requests = [0, 0]
        self.excluded: Counter[tuple[str, int]] = Counter()

    def tell(self, signal: str, once: Any, note: Note) -> None:
        """Of a key once for the same `once`, of a request without one each time."""
        place, arm, _, flags, _, _ = note
        cell = None if flags & KEYLESS else cell_of(place, SCRAMBLE)
        if cell is None or (once, cell) not in self.known:
            self.known.add((once, cell))
            self.told.setdefault(f"{signal}/{ARMS[arm]}", Counter())[cell] += 1

    def add(self, note: Note) -> None:
        """Count one."""
        _, arm, seconds, flags, fault, outputs = note
        if not flags & KEYLESS:  # who has no key is told of when it is drawn: `met`
            self.tell("exposed", ("exposed", arm), note)
        failed = fault is not None and fault.counts
        if fault is None or failed:
            self.requests[arm] += 1
        else:
            self.excluded[fault.reason, arm] += 1
        if failed:
            self.tell("errors", "errors", note)
        if flags & UNWELL:
            self.tell("features", "features", note)
        if flags & DEFAULTED:
            self.excluded["defaulted", arm] += 1
            return
        for signal, bound in (("slow", 0.05), ("pace:0", 0.01), ("pace:1", 0.03)):
            if failed or seconds > bound:
                self.tell(signal, signal, note)
        if fault is None and outputs is not None:
            score = outputs
            self.tell(f"scores:{int(score * 4)}", "scores", note)


def test_counts_are_those_of_counting_one_by_one() -> None:
    """Every signal tells the same keys of the same arm, over several batches, as slow counting."""
    counting = counting_of({"score": "p[1]"})
    slowly = Slowly()
    draw = random.Random(7)
    seen: dict[str, Counter[Any]] = {}
    requests, excluded = [0, 0], Counter[tuple[str, int]]()
    for number in range(1, 9):
        for _ in range(draw.randrange(1, 4)):
            notes = some_notes(draw, draw.randrange(1, 90))
            counting.add(0.5, left(notes))
            for note in notes:
                slowly.add(note)
        batch = counting.close(number, 0.0)
        assert batch is not None
        for signal, cells in told(batch).items():
            seen.setdefault(signal, Counter()).update(cells)
        [share] = batch.shares
        requests = [a + b for a, b in zip(requests, share.requests, strict=True)]
        for reason, pair in share.excluded.items():
            for arm, count in enumerate(pair):
                excluded[reason, arm] += count

    assert seen == slowly.told
    assert requests == slowly.requests
    assert +excluded == +slowly.excluded


def test_a_key_that_changes_its_arm_is_exposed_to_both() -> None:
    """A weight that rises takes keys from production; both meetings are told, each once."""
    counting = counting_of()
    counting.add(0.1, left([(1 << 62, 1, 0.001, 0, None, None)] * 2))
    counting.add(0.5, left([(1 << 62, 0, 0.001, 0, None, None)] * 2))
    batch = counting.close(1, 0.0)
    assert batch is not None
    cell = cell_of(1 << 62, SCRAMBLE)

    assert told(batch) == {"exposed/production": {cell: 1}, "exposed/canary": {cell: 1}}
    assert [share.rho for share in batch.shares] == [0.1, 0.5]


def test_a_score_that_is_no_number_has_a_bin_of_its_own() -> None:
    """NaN and infinity are neither high nor low scores."""
    counting = counting_of()
    notes: list[Note] = [
        (place, 0, 0.001, 0, None, score)
        for place, score in ((1 << 60, np.nan), (1 << 61, -np.inf), (1 << 62, 0.75), (1 << 63, 9.0))
    ]
    counting.add(0.5, left(notes))
    batch = counting.close(1, 0.0)
    assert batch is not None

    [share] = batch.shares
    found = {name: len(arms.canary.cells) // 4 for name, arms in share.events.items()}
    assert found == {"scores:nan": 2, "scores:3": 2}


def test_a_score_that_is_text_fails_nobody() -> None:
    """A version that answers something else than a number is a shift, and the answer stands."""
    counting = counting_of()
    counting.add(0.5, left([(1 << 60, 0, 0.001, 0, None, b"high")]))
    batch = counting.close(1, 0.0)
    assert batch is not None

    assert list(batch.shares[0].events) == ["scores:nan"]


def test_classes_are_bins_by_their_own_names() -> None:
    """Without edges each class that is decided is a bin; beyond 64 they share one."""
    counting = counting_of({"task": "multiclass", "decision": "label"}, bins={})
    notes: list[Note] = [(place << 40, 1, 0.001, 0, None, b"c%d" % place) for place in range(70)]
    counting.add(0.5, left(notes))
    batch = counting.close(1, 0.0)
    assert batch is not None

    [share] = batch.shares
    assert len(share.events) == 65
    assert len(share.events["scores:other"].production.cells) == 4 * 6
    assert len(share.events["scores:c0"].production.cells) == 4


def test_a_key_s_first_copy_speaks_for_it() -> None:
    """Copies of one key count once; all copies are counted beside."""
    counting = counting_of()
    counting.copied([(5, "agree"), (5, "differ"), (None, "failed"), (None, "failed")])
    counting.copied([(5, "differ"), (1 << 50, "differ")])
    batch = counting.close(1, 0.0)
    assert batch is not None

    found = {name: (len(one.cells) // 4, one.unkeyed) for name, one in batch.shadow.items()}
    assert found == {"agree": (1, 0), "differ": (1, 0), "failed": (0, 2)}
    assert batch.copies == 6


def test_nothing_makes_no_batch() -> None:
    """Where nothing has happened there is nothing to send."""
    assert counting_of().close(1, 0.0) is None


def test_a_cell_is_fresh_once() -> None:
    """Neighbours in one byte do not hide each other, and repeats count once."""
    told = Told()

    first = told.fresh(np.array([8, 9, 8, 15, 9], np.uint32))
    again = told.fresh(np.array([15, 10, 8], np.uint32))

    assert first.tolist() == [0, 1, 3]
    assert again.tolist() == [1]


def test_for_a_limit_each_request_counts() -> None:
    """A share of requests is compared, so a key that fails three times has failed three times."""
    rules = [{"name": "cap", "metric": "error_rate", "test": "threshold", "at_most": 0.1}, *RULES]
    counting = Counting(compile_plan(model_of(rules), TRAFFIC), SCRAMBLE)
    counting.add(0.5, left([(1 << 62, 0, 0.001, FAULTY, ERROR, None)] * 3))
    batch = counting.close(1, 0.0)
    assert batch is not None

    assert told(batch)["cap/canary"] == {None: 3}
    assert told(batch)["errors/canary"] == {cell_of(1 << 62, SCRAMBLE): 1}
