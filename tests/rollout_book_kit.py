"""What tests of a rollout's book share: workers that count at random, and a book made of sets."""

import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from serving.config.schema import Rule
from serving.rollout.book import Book
from serving.rollout.wire import CELLS, Arms, Batch, Cells, Share, Unfolded

RULES = [
    Rule(name="errors", metric="error_rate"),
    Rule(name="slow", metric="latency"),
    Rule(name="scores", metric="prediction_shift"),
    Rule(name="agree", metric="shadow_agreement"),
]
SIGNALS = ("errors", "slow:p50", "slow:p99", "scores:0", "scores:1", "scores:2")


def cells(*keys: int, unkeyed: int = 0) -> Cells:
    """Keys as a worker tells of them."""
    return Cells(np.array(keys, "<u4").tobytes(), unkeyed)


def share(
    rho: float = 0.25,
    *,
    requests: tuple[int, int] = (0, 0),
    exposed: Arms | None = None,
    events: dict[str, Arms] | None = None,
    excluded: dict[str, list[int]] | None = None,
) -> Share:
    """What happened under one probability."""
    nobody = Arms(Cells(), Cells())
    return Share(rho, list(requests), exposed or nobody, events or {}, excluded or {})


def batch(number: int, *shares: Share, **more: object) -> Batch:
    """What one worker counted since the batch before."""
    made = Batch(number, 0.0, 1, list(shares), {}, [[], []])
    for name, value in more.items():
        setattr(made, name, value)
    return made


def errors(number: int, *keys: int, rho: float = 0.25) -> Batch:
    """A batch in which these keys had an error of the canary."""
    return batch(number, share(rho, events={"errors": Arms(cells(*keys), Cells())}))


def told(*batches: Batch, worker: str = "a", ended: bool = False) -> Unfolded:
    """What stands in the store of one worker."""
    return Unfolded(worker, worker, list(batches), ended)


def random_batch(number: int, rng: random.Random, *, keys: int = 60) -> Batch:
    """Keys out of few, so that most are told of more than once, by several workers."""

    def some() -> Cells:
        most = rng.choice((0, 3, 3, 400))
        return cells(
            *(rng.randrange(keys) * (CELLS // keys) for _ in range(rng.randint(0, most))),
            unkeyed=rng.choice((0, 0, 2)),
        )

    def arms() -> Arms:
        return Arms(some(), some())

    made = [
        share(
            rng.choice((0.01, 0.05, 0.25)),
            requests=(rng.randrange(9), rng.randrange(9)),
            exposed=arms(),
            events={signal: arms() for signal in SIGNALS if rng.random() < 0.5},
            excluded={rng.choice(("fallback", "override")): [1, 2]},
        )
        for _ in range(rng.randint(0, 2))
    ]
    return batch(
        number,
        *made,
        shadow={outcome: some() for outcome in ("agree", "differ") if rng.random() < 0.5},
        seconds=[[rng.random()], [rng.random(), rng.random()]],
    )


@dataclass
class Sets:
    """The same book with a Python set for each signal, and no thought for speed."""

    had: dict[str, set[int]] = field(default_factory=dict)
    folded: Counter[str] = field(default_factory=Counter)
    counts: Counter[tuple[object, ...]] = field(default_factory=Counter)

    def add(self, worker: str, batch: Batch) -> None:
        """Count one batch."""
        self.folded[worker] = batch.number
        for one in batch.shares:
            self._exposed(one)
            for arm in (0, 1):
                self.counts["requests", arm] += one.requests[arm]
                for reason, pair in one.excluded.items():
                    self.counts["excluded", reason, arm] += pair[arm]
            for signal, arms in one.events.items():
                name = "scores" if signal.startswith("scores:") else signal
                for arm, found in enumerate((arms.canary, arms.production)):
                    self.counts["events", signal, one.rho, arm] += self._new(name, found)
        for outcome, found in batch.shadow.items():
            self.counts["shadow", outcome] += self._new("shadow", found)
            self.counts["copies",] += len(found.cells) // 4 + found.unkeyed

    def _exposed(self, one: Share) -> None:
        for arm, found in enumerate((one.exposed.canary, one.exposed.production)):
            self.counts["keys", arm] += self._new(f"met {arm}", found)
            self.counts["exposures", one.rho, arm] += self._new("met", found)

    def _new(self, name: str, found: Cells) -> int:
        had, told = self.had.setdefault(name, set()), set(np.frombuffer(found.cells, "<u4"))
        new = {int(one) for one in told} - had
        had |= new
        return len(new) + found.unkeyed


def counts_of(book: Book) -> Counter[tuple[object, ...]]:
    """A book's counts, named as `Sets` names them."""
    found: Counter[tuple[object, ...]] = Counter()
    found["copies",] = book.copies
    for arm in (0, 1):
        found["requests", arm] = book.requests[arm]
        found["keys", arm] = book.keys[arm]
        for reason, pair in book.excluded.items():
            found["excluded", reason, arm] = pair[arm]
        for rho, pair in book.exposures().items():
            found["exposures", rho, arm] = pair[arm]
        for rule in RULES:
            for signal in book.signals(rule.name):
                for rho, pair in book.events(signal).items():
                    found["events", signal, rho, arm] = pair[arm]
    for outcome, number in book.shadow.items():
        found["shadow", outcome] = number
    return +found
