"""One run of the Locust users: its options, what they have seen, and its verdict and reports."""

import inspect
import math
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import msgspec
from locust_calls import Known, TargetRefuses, learn
from locust_record import Outcome, Seen, Span, result_of
from locust_traffic import (
    Asked,
    Mix,
    Popularity,
    batch_sizes,
    from_metadata,
    from_scenario,
    weighted,
)

from serving.errors import InvalidConfig
from serving.loadtest.against import WHOLE, NoBaseline, compare, read_baseline
from serving.loadtest.reading import read_scenario
from serving.loadtest.report.document import Document, document, to_json
from serving.loadtest.report.junit import to_junit
from serving.loadtest.report.machine import machine
from serving.loadtest.report.page import to_html
from serving.loadtest.results import Comparison
from serving.loadtest.scenario import Scenario
from serving.loadtest.slo import judge
from serving.loadtest.target import TargetUnreachable
from serving.loadtest.words import figure_words

__all__ = ["Run", "add_options", "prepare"]

_TIMEOUT: Final = 10.0
_MET, _MISSED, _USAGE, _UNREACHABLE = 0, 1, 2, 3
"""Exit codes, as all of Sluice's commands have them."""


def add_options(parser: Any) -> None:
    """What is ours on Locust's command line; `LOCUST_…` variables and locust.conf work too."""
    group = parser.add_argument_group("Sluice")
    for name, default, kind, words in (
        ("--scenario", "", str, "scenario file: its requests, deadline and SLOs"),
        ("--phase", "", str, "the phase of the scenario that this run stands for in its SLOs"),
        ("--grpc-host", "", str, "HOST:PORT of gRPC users [default: --host's, port 8001]"),
        ("--models", "", str, "MODEL[:WEIGHT],… without a scenario [default: all ready ones]"),
        ("--batch-sizes", "", str, "ROWS[:WEIGHT],… without a scenario [default: by the model]"),
        ("--entities", 1000, int, "how many entities there are, without a scenario"),
        ("--zipf", 1.0, float, "how unequal their popularity is; 0: all alike"),
        ("--user-rate", 10.0, float, "requests a second of one user"),
        ("--against", "", str, "a run before (its --verdict-json): figures in multiples of it"),
        ("--verdict-json", "", str, "file for the report as JSON"),
        ("--verdict-junit", "", str, "file for the report as JUnit XML"),
        ("--verdict-html", "", str, "file for the report as one page"),
    ):
        group.add_argument(
            name,
            default=default,
            type=kind,
            help=words,
            env_var=f"LOCUST_{name[2:].upper().replace('-', '_')}",
        )


def prepare(environment: Any) -> "Run":
    """Read the scenario and ask the target what it has.

    Raises:
        SystemExit: with the exit code; what is wrong has been said.
    """
    options = environment.parsed_options
    scenario = None
    try:
        if options.scenario:
            scenario = read_scenario(Path(options.scenario))
        before = read_baseline(Path(options.against)) if options.against else None
        run = Run(scenario, options, _checked(environment.host or options.host, options.user_rate))
        run.before = before
    except (InvalidConfig, NoBaseline, ValueError) as error:
        lines = [str(error), *(str(one) for one in getattr(error, "problems", ()))]
        _leave(_USAGE, "\n".join(lines))
    except TargetRefuses as error:
        _leave(_USAGE, str(error))
    except TargetUnreachable as error:
        _leave(_UNREACHABLE, str(error))
    # A request that is cut off looks like a slow server; a server that hangs must not look fast.
    environment.stop_timeout = environment.stop_timeout or run.timeout + 1
    Run.of_this_process = run
    return run


def _checked(host: str | None, rate: float) -> str:
    if not host or urlsplit(host).scheme not in ("http", "https"):
        raise ValueError(f"--host is `{host or ''}`: expected http://HOST:PORT or https://")
    if not rate > 0:
        raise ValueError(f"--user-rate is {rate:g}: expected a number above 0")
    return host


def _leave(code: int, words: str) -> Any:
    print(words, file=sys.stderr)
    raise SystemExit(code)


class Run:
    """What the users of this process share. Times given to it are monotonic."""

    of_this_process: ClassVar["Run | None"] = None
    """Locust's events between processes do not say which environment they are of."""

    def __init__(self, scenario: Scenario | None, options: Any, host: str) -> None:
        self.host = host
        self.grpc: str = options.grpc_host or f"{urlsplit(host).hostname}:8001"
        self.user_rate: float = options.user_rate
        self.deadline = (
            None if scenario is None or scenario.deadline is None else float(scenario.deadline)
        )
        self.warmup = 0.0 if scenario is None else float(scenario.warmup)
        self.timeout = _TIMEOUT if scenario is None else float(scenario.timeout)
        self.patience = self.timeout
        """Seconds that somebody waits for an answer."""
        token = os.environ.get("SLUICE_TOKEN", "")
        self.headers = dict(scenario.headers) if scenario is not None else {}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self.kinds = _kinds(scenario, options, host, token)
        self.seen = Seen()
        self.workers: dict[str, Seen] = {}
        self.before: Document | None = None
        """What the run is compared with."""
        self._stopped: float | None = None
        self._scenario = scenario
        self._options = options
        self._flying = 0
        self._began = self._wall = time.time()
        self._cpu = 0.0

    def start(self) -> None:
        """The users begin; what was seen before is forgotten."""
        self.seen, self._stopped = Seen(), None
        self.workers.clear()
        # Locust does this when it stops, and the first time it takes a quarter of a second in which
        # no user gets on: it reads the sources of half the program.
        inspect.stack()
        self._began, self._wall, self._cpu = time.monotonic(), time.time(), time.process_time()

    def stop(self) -> None:
        """Nothing more is to be sent."""
        if self._stopped is None:
            self._stopped = self.end(time.monotonic())
            self._used()

    def end(self, now: float) -> float:
        """Until when requests were to be sent: Locust itself stops a little late."""
        if self._stopped is not None:
            return self._stopped
        seconds = self._options.run_time
        return now if seconds is None else min(now, self._began + seconds)

    def _used(self) -> None:
        wall = max((self._stopped or time.monotonic()) - self._began, 1e-3)
        self.seen.cpu_share = (time.process_time() - self._cpu) / wall

    def in_flight(self, more: int) -> None:
        """A request leaves (1) or has ended (-1)."""
        self._flying += more
        self.seen.most_in_flight = max(self.seen.most_in_flight, self._flying)

    def add(self, one: Outcome) -> None:
        """Count an outcome, whose `due` is monotonic, unless it was due after the end."""
        if one.due >= self.end(math.inf):
            return
        self.seen.add(
            msgspec.structs.replace(one, due=one.due - self._began), self.deadline, self.patience
        )

    def unsent(self, kind: str, due: float) -> None:
        """Count what was due and could not be sent."""
        self.seen.unsent(kind, due - self._began)

    def hand_over(self) -> bytes:
        """All that this process has seen so far, for the master."""
        if self._stopped is None:
            self._used()
        return msgspec.msgpack.encode(self.seen)

    def take_over(self, worker: str, seen: bytes | None) -> None:
        """Keep the latest of a worker: each report has all before it."""
        if seen is not None:
            self.workers[worker] = msgspec.msgpack.decode(seen, type=Seen)

    def finish(self, *, users: int, processes: int, run_time: float | None) -> int:
        """Judge, print and write; the exit code."""
        self.stop()
        for one in self.workers.values():
            self.seen.merge(one)
        seconds = (self._stopped or 0.0) - self._began
        scenario = self._scenario
        result = result_of(
            self.seen,
            Span(started=self._wall, seconds=seconds, warmup=self.warmup),
            target=self.host,
            protocol="locust",
            phase=self._options.phase or "locust",
            users=users,
            processes=max(1, processes),
            deadline=self.deadline,
            # Half a second: Locust looks at its clock now and then.
            interrupted=run_time is not None and seconds < run_time - 0.5,
            versions={name: version(name) for name in ("sluice-gateway", "locust", "grpcio")}
            | {"python": platform.python_version()},
            **_of_scenario(scenario),
        )
        if self.before is not None:
            result.against = compare(self.before, result, machine=machine())
        verdict = judge(result, scenario.slos if scenario else [])
        report = document(result, verdict, machine=machine(), command=" ".join(sys.argv))
        _write(report, self._options)
        print(_spoken(report))
        return _MET if report.outcome == "met" else _MISSED


def _kinds(scenario: Scenario | None, options: Any, host: str, token: str) -> Mix[Asked]:
    if scenario is not None:
        names = list(dict.fromkeys(kind.model for kind in scenario.requests))
        known = {one.model: one for one in learn(host, names, token)}
        return Mix(
            [
                (
                    from_scenario(kind, known[kind.model].inputs, known[kind.model].outputs),
                    kind.weight,
                )
                for kind in scenario.requests
            ]
        )
    weights = weighted(options.models) if options.models else {}
    who = Popularity(options.entities, options.zipf)
    return Mix(
        [
            (_by_metadata(one, options, who), weights.get(one.model, 1.0))
            for one in learn(host, list(weights), token)
        ]
    )


def _by_metadata(one: Known, options: Any, who: Popularity) -> Asked:
    rows = Mix(batch_sizes(options.batch_sizes, one.most).items())
    return from_metadata(one.model, one.inputs, one.outputs, rows=rows, who=who)


def _of_scenario(scenario: Scenario | None) -> dict[str, Any]:
    if scenario is None:
        return {"scenario": "locust"}
    return {
        "scenario": scenario.name,
        "max_lag": float(scenario.max_lag),
        "labels": {name: str(value) for name, value in scenario.labels.items()},
    }


def _write(report: Document, options: Any) -> None:
    for path, content in (
        (options.verdict_json, lambda: to_json(report)),
        (options.verdict_junit, lambda: to_junit(report).encode()),
        (options.verdict_html, lambda: to_html(report).encode()),
    ):
        if path:
            Path(path).write_bytes(content())


def _spoken(report: Document) -> str:
    figures = report.whole.figures
    seconds = report.whole.seconds
    lines = [f"{figures.scheduled} requests in {seconds:.1f} s, {figures.failed} without success"]
    lines += [f"{'met   ' if check.ok else 'MISSED'}  {check.words}" for check in report.slos]
    lines += [f"INVALID {reason}" for reason in report.invalid]
    if report.against is not None:
        lines += [_beside(one) for one in report.against.figures if one.place == WHOLE]
        lines += [f"the runs differ in {one}" for one in report.against.differences]
    return "\n".join(lines)


def _beside(one: Comparison) -> str:
    before, now = (figure_words(one.figure, value) for value in (one.before, one.now))
    ratio = f"not compared: {one.reason}" if one.ratio is None else f"{one.ratio:.3g} ×"
    return f"against before  {one.figure}: {ratio} ({before} before, {now} now)"
