"""Whether the gateway's memory stays where it is: many requests, many changes, at full speed.

    python loadtests/soak.py                       # 1,000,000 requests, 200 changes, 50 loads
    python loadtests/soak.py --requests 100000 --changes 20 --loads 5 --rounds 10
    python loadtests/soak.py --csv memory.csv --json

`sluice up` with the local engine serves three models; a generator (`soak_traffic.py`, a process of
its own) asks it over HTTP with JSON and binary tensors and over gRPC: by key with features (more
keys than the near cache holds), whole rows, with traces, with mistakes of every kind, unknown
models, callers that hang up in the middle. Shadow copies, the prediction log, a rollout's evidence
and a trace collector are on. Meanwhile the configuration changes: new releases, rollouts that
begin and end, shadow shares, feature views; a model is unloaded and loaded again.

It goes in rounds: some to warm up, then those that count, the second half of them with changes.
After each one, every process is asked what it holds. At the end each must have at most `--bound`
more resident memory than when it was warm. Beside that stands what a request and a change leave
behind in use, counted in blocks and bytes: that tells a leak from a heap that has become crumbly.

Exit 1: a process grew by more, an answer was wrong, or the time was over before the counts.
"""

import argparse
import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import soak_report
from soak_collector import collector
from soak_directory import Directory
from soak_gateway import Refused, SoakGateway, running
from soak_memory import look
from soak_traffic import Done, Orders
from soak_verdict import Sample

__all__ = ["Plan", "Seen", "is_busy", "soak"]

SETTLE_SECONDS: Final = 1.2
"""After a round, before memory is looked at: the prediction log and metrics are written by then."""

_PROBLEMS: Final = 5
"""Told in full; the counts say how many there were."""

TRAFFIC: Final = Path(__file__).parent / "soak_traffic.py"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything. The warm-up comes on top, with as much a round."""

    requests: int = 1_000_000
    changes: int = 200
    loads: int = 50
    rounds: int = 40
    warm_up: int = 8
    workers: int = 1
    connections: tuple[int, int] = (12, 4)
    seconds: float = 900.0
    even: bool = False


class Seen(msgspec.Struct, kw_only=True):
    """What happened."""

    plan: Plan
    samples: list[Sample] = []
    answered: dict[str, int] = {}
    changed: dict[str, int] = {}
    connections: int = 0
    spans: int = 0
    wrong: int = 0
    problems: list[str] = []


class _Run:
    """One run: the gateway, its traffic, and how far it is."""

    def __init__(
        self,
        plan: Plan,
        gateway: SoakGateway,
        directory: Directory,
        traffic: "subprocess.Popen[str]",
    ) -> None:
        self.seen = Seen(plan=plan)
        self._plan = plan
        self._gateway = gateway
        self._directory = directory
        self._traffic = traffic
        self._began = time.monotonic()
        self._requests = self._changes = self._loads = self._busy = 0
        self._answered: Counter[str] = Counter()
        self._changed: Counter[str] = Counter()

    def round(self, number: int) -> None:
        """Round `number`, from 0 on: requests, changes meanwhile if it is a busy one, a look."""
        plan = self._plan
        warming = number < plan.warm_up
        busy = is_busy(plan, number)
        self._send(plan.requests // plan.rounds)
        if busy:
            turns = plan.rounds // 2
            self._change(
                _part(plan.changes, turns, self._busy), _part(plan.loads, turns, self._busy)
            )
            self._busy += 1
        self._collect()
        time.sleep(SETTLE_SECONDS)
        phase = "busy" if busy else "plain"
        self.seen.samples.append(
            Sample(
                phase="warm-up" if warming else phase,
                seconds=time.monotonic() - self._began,
                requests=self._requests,
                changes=self._changes,
                loads=self._loads,
                held={
                    name: look(self._gateway.probe, pid)
                    for name, pid in self._gateway.processes().items()
                },
            )
        )

    def over(self) -> bool:
        """Whether the time is."""
        return time.monotonic() - self._began > self._plan.seconds

    def finish(self) -> Seen:
        """Everything that was seen."""
        self.seen.answered = dict(sorted(self._answered.items()))
        self.seen.changed = dict(sorted(self._changed.items()))
        standing = self._gateway.call("/api/v1/rollouts/employment")
        if standing["phase"] != "progressing":
            self._problem(f"the rollout of employment is {standing['phase']}: {standing['reason']}")
        return self.seen

    def _send(self, requests: int) -> None:
        assert self._traffic.stdin is not None
        self._traffic.stdin.write(f"{requests}\n")
        self._traffic.stdin.flush()

    def _collect(self) -> None:
        assert self._traffic.stdout is not None
        line = self._traffic.stdout.readline()
        if not line:
            sys.exit("the load generator has ended by itself; what it said stands above")
        done = msgspec.json.decode(line, type=Done)
        self._requests += sum(done.answered.values())
        self._answered.update(done.answered)
        self.seen.wrong += done.wrong
        self.seen.connections = done.connections
        if done.problem:
            self._problem(done.problem)

    def _change(self, changes: int, loads: int) -> None:
        for each in range(max(changes, loads)):
            if each < loads:
                self._load()
            if each < changes:
                self._apply()

    def _apply(self) -> None:
        self._changes += 1
        kind = self._directory.change(self._changes, rollout_over=self._rollout_is_over())
        try:
            said = self._gateway.call(
                "/api/v1/config/apply", {"directory": str(self._directory.folder)}
            )
        except Refused as error:
            self._problem(f"{kind}: {error}")
            return
        self._changed[kind if said["published"] else f"{kind}, without effect"] += 1

    def _rollout_is_over(self) -> bool:
        candidate = self._directory.candidate
        if not candidate:
            return True
        try:
            standing = self._gateway.call("/api/v1/rollouts/scores")
        except Refused:  # control has not begun it yet
            return False
        return standing["canary"] == candidate and standing["phase"] == "done"

    def _load(self) -> None:
        self._loads += 1
        try:
            for verb in ("unload", "load"):
                self._gateway.call(f"/v2/repository/models/coming/{verb}", {})
                self._changed[verb] += 1
        except Refused as error:
            self._problem(str(error))

    def _problem(self, words: str) -> None:
        if len(self.seen.problems) < _PROBLEMS:
            self.seen.problems.append(words)


def is_busy(plan: Plan, number: int) -> bool:
    """Whether the configuration changes in a round, from 0 on.

    In the second half of those that count: the first half says what requests alone leave behind.
    In every second one of the warm-up, but not in its last two, as a rollout goes on for a while.
    """
    if number < plan.warm_up:
        return number % 2 == 1 and number < plan.warm_up - 2
    return number >= plan.warm_up + plan.rounds - plan.rounds // 2


def _part(whole: int, turns: int, turn: int) -> int:
    """What falls to one of several turns, so that all of them get the whole."""
    return whole * (turn % turns + 1) // turns - whole * (turn % turns) // turns


def soak(plan: Plan, folder: Path, tell: Callable[[list[Sample]], None] = lambda _: None) -> Seen:
    """Run it all in a folder; `tell` is shown all samples after each round."""
    with collector() as spans, contextlib.ExitStack() as stack:
        directory = Directory(folder / "conf", workers=plan.workers, otlp=spans.address)
        gateway = stack.enter_context(running(directory.folder, folder / "data"))
        orders = Orders(
            http=gateway.http, grpc=gateway.grpc, connections=plan.connections, even=plan.even
        )
        traffic = stack.enter_context(_generator(orders))
        run = _Run(plan, gateway, directory, traffic)
        for number in range(plan.warm_up + plan.rounds):
            if run.over():
                run.seen.problems.append(
                    f"the time ({plan.seconds / 60:g} minutes) was over after {number} of "
                    f"{plan.warm_up + plan.rounds} rounds"
                )
                break
            run.round(number)
            tell(run.seen.samples)
        seen = run.finish()
        seen.spans = spans.count
        return seen


@contextlib.contextmanager
def _generator(orders: Orders) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, str(TRAFFIC)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(orders).decode() + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Read the options, run, print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    plan = Plan()
    number = parser.add_argument
    number("--requests", type=int, default=plan.requests, help="after the warm-up [%(default)s]")
    number("--changes", type=int, default=plan.changes, help="of the configuration [%(default)s]")
    number("--loads", type=int, default=plan.loads, help="unload and load a model [%(default)s]")
    number("--rounds", type=int, default=plan.rounds, help="looks at memory [%(default)s]")
    number("--warm-up", type=int, default=plan.warm_up, help="rounds before [%(default)s]")
    number("--workers", type=int, default=plan.workers, help="[%(default)s]")
    number("--minutes", type=float, default=plan.seconds / 60, help="at most [%(default)s]")
    number("--bound", type=float, default=0.05, help="growth that is allowed [%(default)s]")
    number("--even", action="store_true", help="as many requests of each kind, however rare")
    number("--json", action="store_true", help="print everything that was seen as JSON")
    number("--csv", type=Path, help="keep every sample in this file")
    options = parser.parse_args()
    plan = Plan(
        requests=options.requests,
        changes=options.changes,
        loads=options.loads,
        rounds=options.rounds,
        warm_up=options.warm_up,
        workers=options.workers,
        seconds=options.minutes * 60,
        even=options.even,
    )

    def tell(samples: list[Sample]) -> None:
        print(soak_report.progress(samples), file=sys.stderr, flush=True)
        if options.csv:
            options.csv.write_text(soak_report.csv(samples))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # and tidied up
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        seen = soak(plan, Path(folder), tell)
    verdict = soak_report.verdict(seen.samples, seen.wrong, seen.problems, options.bound)
    if options.json:
        print(msgspec.json.encode({"seen": seen, "verdict": verdict}).decode())
    else:
        print(soak_report.report(seen, verdict))
    sys.exit(1 if verdict.reasons else 0)


if __name__ == "__main__":
    main()
