"""Counts the instructions of requests; run under callgrind by `budget.py`.

    valgrind --tool=callgrind … python budget_counting.py LOADS CALLGRIND_OUT RESULT

Of each case three figures are taken. `sixteen`: instructions per request while sixteen are in
flight, all given to the worker in one turn of the loop. `alone`: with one in flight. `stations`:
one in flight again, and the worker's clock counts instructions, so that its own
`sluice_station_duration_seconds` says how many each station took.
"""

import argparse
import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from itertools import repeat
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import onnxruntime
import orjson
from bench_floor import Floor
from budget_callgrind import Callgrind, InstructionClock
from budget_load import WALL_SECONDS, Case, Load
from budget_verdict import Counts, LoadCounts
from budget_wire import Answers, Loop, StoreRows, Wire
from budget_worker import BareWorker

from serving.config.snapshot_codec import decode_snapshot
from serving.protocol._generated import inference_pb2 as pb
from serving.types import Call
from serving.worker.life import settle_memory
from serving.worker.tracing import NoTracing

CONNECTIONS: Final = 16
"""Requests in flight."""

WARM_WAVES: Final = 8
WAVES: Final = 16
"""Of sixteen; counters are brought up to date after every fourth, as at 6,000 requests/s."""

WAVES_A_SETTLING: Final = 4
ALONE: Final = 32
_ROUNDS: Final = 3
_ASKED: Final = 6
_TURNS: Final = 10_000
_TOLERANCE: Final = 1e-5

Send = Callable[[bytes], None]


class WrongAnswer(Exception):
    """What answers wrongly may be cheap; nothing is counted of it."""


class Burden(NoTracing):
    """Work that nobody needs, in the station `admit`, where tracing is asked.

    A budget that does not notice it is none: `loops` of an empty loop for each request.
    """

    def __init__(self) -> None:
        self.loops = 0

    def begin(self, call: Call) -> None:
        """Sample nothing, at a price."""
        del call
        for _ in repeat(None, self.loops):  # which, unlike `range`, makes nothing
            pass


def probabilities(protocol: str, answer: bytes) -> list[float]:
    """The numbers of an answer. Raises WrongAnswer for one that is no success."""
    if protocol == "grpc":
        raw = pb.ModelInferResponse.FromString(answer).raw_output_contents
        return np.frombuffer(raw[-1], np.float32).tolist()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise WrongAnswer(f"{head.splitlines()[0]!r}: {body[:200]!r}")
    if b"inference-header-content-length" in head:
        return np.frombuffer(body[-8:], np.float32).tolist()
    outputs = {one["name"]: one["data"] for one in orjson.loads(body)["outputs"]}
    found: list[float] = outputs["probabilities"]
    return found


class Driver:
    """Asks by turns: connection i sends message i."""

    def __init__(self, case: Case, expected: list[list[float]], answers: Answers) -> None:
        self.sends: list[Send] = []
        self.answers = answers
        self._case = case
        self._expected = expected

    async def wave(self) -> None:
        """One request on every connection, all before any is answered."""
        messages = self._case.messages
        done = self.answers.expect(CONNECTIONS)
        for number, send in enumerate(self.sends):
            send(messages[number])
        await done

    async def one(self, number: int) -> None:
        """One request by itself."""
        done = self.answers.expect(1)
        self.sends[number](self._case.messages[number])
        await done

    async def checked_wave(self) -> None:
        """A wave whose answers are looked at.

        Raises:
            WrongAnswer: one is not what the model says, or does not come.
        """
        wave = asyncio.ensure_future(self.wave())
        for _ in range(_TURNS):
            if wave.done():
                break
            await asyncio.sleep(0)
        else:
            raise WrongAnswer(f"{self._case.name} is not answered")
        wave.result()
        for number, answer in enumerate(self.answers.last):
            found = probabilities(self._case.protocol, answer)
            if not np.allclose(found, self._expected[number], atol=_TOLERANCE):
                raise WrongAnswer(f"{self._case.name}: request {number} was answered {found}")


class Counter:
    """Takes the figures of one case."""

    def __init__(self, callgrind: Callgrind, clock: InstructionClock) -> None:
        self.callgrind = callgrind
        self.clock = clock

    async def counted(self, work: Callable[[], Awaitable[None]], requests: int) -> float:
        """Instructions a request of `work`, which makes so many: of several rounds the least.

        The least, because what happens now and then (a timer, a thread of a library that wakes)
        makes a round dearer, and nothing makes one cheaper.
        """
        found = []
        for _ in range(_ROUNDS):
            gc.collect()
            self.callgrind.begin()
            await work()
            found.append(self.callgrind.end() / requests)
        return min(found)

    async def case(self, driver: Driver, worker: BareWorker) -> Counts:
        """All three figures, of a driver that is warm."""

        async def sixteen() -> None:
            for number in range(1, WAVES + 1):
                await driver.wave()
                if number % WAVES_A_SETTLING == 0:
                    worker.settle()

        async def alone() -> None:
            for number in range(ALONE):
                await driver.one(number % CONNECTIONS)
            worker.settle()

        return Counts(
            sixteen=await self.counted(sixteen, WAVES * CONNECTIONS),
            alone=await self.counted(alone, ALONE),
            stations=await self.stations(driver, worker),
        )

    async def stations(self, driver: Driver, worker: BareWorker) -> dict[str, float]:
        """Instructions a request by station, one in flight: of several rounds the least, too.

        Beside the product's stations: `between`, what is in none of them, above all the way back
        from a batch to its requests; `write`, from the answer put together to its bytes handed to
        the transport (record, evidence, encode); `rest`, what comes after that (tasks ending, and
        a share of bringing the counters up to date).
        """
        rounds = [await self._round(driver, worker) for _ in range(_ROUNDS)]
        return {name: min(one[name] for one in rounds) for name in rounds[0]}

    async def _round(self, driver: Driver, worker: BareWorker) -> dict[str, float]:
        clock, wrote, inside = self.clock, 0, 0
        before = worker.station_seconds()
        for number in range(ALONE - _ASKED):  # so that counters are settled for as many as ever
            await driver.one(number % CONNECTIONS)

        def told() -> None:
            nonlocal wrote
            wrote = clock.instructions()

        gc.collect()
        driver.answers.told = told
        clock.count()
        began = clock.instructions()
        for number in range(_ASKED):
            asked = clock.instructions()
            await driver.one(number)
            inside += wrote - asked
        ended = clock.instructions()
        worker.settle()
        settled = clock.instructions()
        clock.rest()
        driver.answers.told = None
        after = worker.station_seconds()
        spent = {
            name: (seconds - before.get(name, 0.0)) / clock.SECONDS_PER_INSTRUCTION / _ASKED
            for name, seconds in after.items()
        }
        whole = spent.pop("whole")
        spent["between"] = whole - sum(spent.values())
        spent["write"] = inside / _ASKED - whole
        spent["rest"] = (ended - began - inside) / _ASKED + (settled - ended) / ALONE
        return spent


async def _floor(load: Load, counter: Counter) -> float:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        load.artifact, options, providers=["CPUExecutionProvider"]
    )
    case = Case(name="floor", protocol="http", messages=load.floor)
    answers = Answers(CONNECTIONS)
    driver = Driver(case, load.expected, answers)
    for number in range(CONNECTIONS):
        protocol = Floor(session)
        protocol.connection_made(Wire(lambda data, number=number: answers.take(number, data)))
        driver.sends.append(protocol.data_received)
    for _ in range(WARM_WAVES):
        await driver.checked_wave()

    async def waves() -> None:
        for _ in range(WAVES):
            await driver.wave()

    return await counter.counted(waves, WAVES * CONNECTIONS)


async def _count(
    loads: list[Load], folder: Path, counter: Counter, burden: float
) -> list[LoadCounts]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    found = []
    for load in loads:
        loop.store = StoreRows(load.rows, load.field_lists)
        busy = Burden()
        data = folder / f"{load.name}-worker"
        data.mkdir()
        worker = await BareWorker.start(
            Path(load.config),
            data,
            decode_snapshot(load.snapshot),
            counter.clock,
            busy,
            logged=load.logged,
        )
        drivers = []
        for case in load.cases:
            driver = Driver(case, load.expected, Answers(CONNECTIONS))
            for number in range(CONNECTIONS):
                if case.protocol == "grpc":
                    driver.sends.append(worker.call(loop, driver.answers, number))
                else:
                    driver.sends.append(await worker.connect(loop, driver.answers, number))
            for _ in range(WARM_WAVES):
                await driver.checked_wave()
            for number in range(CONNECTIONS):
                await driver.one(number)
            worker.settle()
            drivers.append(driver)
        settle_memory()  # as a worker does before it answers
        counter.callgrind.start()
        counter.clock.calibrate()
        counts = LoadCounts(name=load.name, floor=await _floor(load, counter), cases={})
        for case, driver in zip(load.cases, drivers, strict=True):
            counts.cases[case.name] = await counter.case(driver, worker)
            if burden and not found and counts.burdened is None:
                # At once: later there are more counters to bring up to date.
                counts.burdened = await _burdened(driver, worker, counter, busy, burden)
        counter.callgrind.stop()
        found.append(counts)
    return found


async def _burdened(
    driver: Driver, worker: BareWorker, counter: Counter, busy: Burden, share: float
) -> Counts:
    """A case again, with more work in `admit`: this share of what a request costs alone."""

    async def alone() -> None:
        for number in range(ALONE):
            await driver.one(number % CONNECTIONS)

    light = await counter.counted(alone, ALONE)
    busy.loops = 1_000
    a_loop = (await counter.counted(alone, ALONE) - light) / busy.loops
    busy.loops = round(share * light / a_loop)
    counts = await counter.case(driver, worker)
    busy.loops = 0
    return counts


def main() -> None:
    """Read what is to be sent, count, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("loads", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--burden", type=float, default=0.0)
    given = parser.parse_args()
    random.seed(0)
    loads = msgspec.msgpack.decode(given.loads.read_bytes(), type=list[Load])
    callgrind = Callgrind(given.output)
    counter = Counter(callgrind, InstructionClock(callgrind, WALL_SECONDS))
    with asyncio.Runner(loop_factory=Loop) as runner:
        counts = runner.run(_count(loads, given.result.parent, counter, given.burden))
    given.result.write_bytes(msgspec.json.encode(counts))


if __name__ == "__main__":
    main()
