"""One model, one request, many servers: what each costs, how fast it answers, what it takes to run.

    python loadtests/compare.py                              # all that is installed: 12 minutes
    python loadtests/compare.py --only floor,uvicorn,sluice  # without peers: 4 minutes
    python loadtests/compare.py --skip ray,sluice-binary --rounds 5
    python loadtests/compare.py --only floor,litserve --rounds 1 --json litserve.json
    python loadtests/compare.py --write                      # and write docs/performance.md
    python loadtests/compare.py --from docs/performance.json --write    # write the page again

Every server serves the same file (100 trees, 30 columns) with one worker and one ONNX Runtime
thread, and is asked the same row. In a round each is started on its own, asked, and ended, so that
none has another's threads beside it; rounds follow each other, A B C … A B C …. Right before a
server the floor is measured again (the least a Python server can do, loadtests/bench_floor.py), and
the ratio is to that.

Measured for each row: CPU µs per request of the whole process tree in closed loop, without what the
tree uses when idle; the median at one connection; p50 and p99 in open loop at fixed rates, counted
from when a request was due, where the server can take the rate; memory; and the time from starting
the command to the first correct answer. Answers are compared with the model's: a server that is
wrong is shown as WRONG, without figures, and the exit code is 1.

Peers have environments of their own: `python -m loadtests.peers install`. What is not installed is
said so in the tables. Everything listens on loopback and ends with this command.
"""

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import compare_chart
import compare_page
import msgspec
from bench import BadAnswers
from bench_ray_serve import insist_on_haproxy
from bench_report import machine
from bench_workloads import Workload, build
from compare_figures import Report, RowReport, Sample, Settings, failed
from compare_measure import floor_cpu_us, idle_cores, measure
from compare_servers import FEATURES, SERVERS, DidNotStart, Row, Server, Started, start_floor

DOCS: Final = Path(__file__).parents[1] / "docs"
PAGE: Final = DOCS / "performance.md"
DATA: Final = DOCS / "performance.json"
CHART: Final = DOCS / "performance.svg"

SETTLE_SECONDS: Final = 1.0
"""Servers still start and end things for a moment after their first answer; that is not idling."""

Say = Callable[[str], None]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the run -----------------------------------------------------------------------------------


class Comparison:
    """The chosen rows of the chosen servers, and what has been found so far."""

    def __init__(
        self,
        chosen: dict[str, Row],
        settings: Settings,
        say: Say,
        servers: Sequence[Server] = SERVERS,
    ) -> None:
        self._chosen = chosen
        self._settings = settings
        self._say = say
        self._servers = [one for one in servers if any(row.name in chosen for row in one.rows)]
        self.reports = {
            row.name: RowReport(
                name=row.name, title=f"{server.title}, {row.words}", server=server.title,
                group=server.group, protocol=row.protocol, payload=server.payload, samples=[],
            )
            for server in self._servers for row in server.rows if row.name in chosen
        }  # fmt: skip
        self.versions: list[str] = []

    def run(self) -> None:
        """All rounds.

        Raises:
            DidNotStart, BadAnswers: The floor does not serve; there is nothing to compare with.
        """
        with tempfile.TemporaryDirectory(prefix="sluice-compare-") as name, ExitStack() as stack:
            folder = Path(name)
            present = [server for server in self._servers if not self._missing(server)]
            workloads, floors = {}, {}
            for payload in sorted({server.payload for server in present}):
                self._say(f"making the payload {payload}")
                (folder / payload).mkdir()
                workloads[payload] = build(payload, folder / payload)
                floors[payload] = stack.enter_context(start_floor(workloads[payload], folder))
            for number in range(1, self._settings.rounds + 1):
                for server in present:
                    if not self._trouble(server):
                        self._say(f"round {number} of {self._settings.rounds}: {server.name}")
                        payload = server.payload
                        self._serve(number, server, workloads[payload], floors[payload], folder)

    def _rows(self, server: Server) -> list[Row]:
        return [row for row in server.rows if row.name in self._chosen]

    def _missing(self, server: Server) -> bool:
        why = server.missing()
        self._note(server, why)
        if not why and (version := server.version()) and version not in self.versions:
            self.versions.append(version)
        return bool(why)

    def _trouble(self, server: Server) -> bool:
        return all(self.reports[row.name].trouble for row in self._rows(server))

    def _note(self, server: Server, why: str) -> None:
        if why:
            self._say(f"  {server.name}: {why}")
            for row in self._rows(server):
                self.reports[row.name].trouble = why

    def _serve(
        self, number: int, server: Server, workload: Workload, floor: Started, folder: Path
    ) -> None:
        """Start a server, measure its rows, end it. What goes wrong with it is noted."""
        try:
            with server.start(workload, folder) as started:
                time.sleep(SETTLE_SECONDS)
                idle = idle_cores(started)
                floor_us = floor_cpu_us(floor, workload, self._settings)
                for row in self._rows(server):
                    report = self.reports[row.name]
                    if report.trouble:
                        continue
                    try:
                        sample = measure(
                            number, row, started, workload, self._settings,
                            floor_us=floor_us, idle=idle,
                        )  # fmt: skip
                        _check(row, sample)
                    except BadAnswers as error:
                        report.trouble = f"WRONG: {error}"
                        self._say(f"  {row.name}: {report.trouble}")
                    else:
                        report.samples.append(sample)
                        self._say(_progress(row, sample))
        except DidNotStart as error:
            self._note(server, _as_trouble(str(error)))


def _as_trouble(words: str) -> str:
    return words if words.startswith("WRONG") else f"did not start: {words}"


def _check(row: Row, sample: Sample) -> None:
    """Raise BadAnswers if Ray Serve's best mode was not at its best."""
    if row.name == "ray-best":
        insist_on_haproxy(row.name, sample.parts_us)


def _progress(row: Row, sample: Sample) -> str:
    rates = "".join(f", p99 at {one.rate:g}/s {one.p99_us:,.0f} µs" for one in sample.rates)
    return (
        f"  {row.name:24}{sample.cpu_us:9,.1f} µs"
        f" = {sample.cpu_us / sample.floor_us:6.2f} x the floor,"
        f" {sample.requests_per_second:6,.0f}/s{rates}"
    )


# --- the command -------------------------------------------------------------------------------

NAMES: Final = {row.name: {row.name} for server in SERVERS for row in server.rows}
for _server in SERVERS:
    for _name in (_server.group, _server.name):
        NAMES.setdefault(_name, set())
        NAMES[_name] = NAMES[_name] | {row.name for row in _server.rows}


def _named(parser: argparse.ArgumentParser, text: str) -> set[str]:
    """The rows that names stand for: of a row, a server, or a group of servers."""
    found: set[str] = set()
    for name in filter(None, text.split(",")):
        if name not in NAMES:
            near = get_close_matches(name, NAMES, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            parser.error(f"there is no server {name}; {hint}there is {', '.join(sorted(NAMES))}")
        found |= NAMES[name]
    return found


def read_command_line() -> argparse.Namespace:
    """The options, with `rows` chosen; wrong usage ends here."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"servers and rows: {', '.join(NAMES)}",
    )
    parser.add_argument("--only", default="", metavar="NAMES", help="these, by comma (all)")
    parser.add_argument("--skip", default="", metavar="NAMES", help="without these")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions (3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a measurement (1.5)")
    parser.add_argument("--connections", type=int, default=16, help="of the closed loop (16)")
    parser.add_argument(
        "--rates", default="100,1000", help="of the open loop, in requests/s (100,1000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--write", action="store_true", help="write docs/performance.*")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="FILE", help="figures of a run, instead of one"
    )
    options = parser.parse_args()
    try:
        options.rates = sorted(float(rate) for rate in options.rates.split(",") if rate)
    except ValueError:
        parser.error(f"--rates takes numbers by comma, not {options.rates}")
    if min(options.seconds, options.rounds, options.connections, *options.rates) <= 0:
        parser.error("--seconds, --rounds, --connections and --rates must be above 0")
    wanted = _named(parser, options.only) or set().union(*NAMES.values())
    wanted -= _named(parser, options.skip)
    if not wanted:
        parser.error("--skip leaves nothing of --only")
    options.rows = {row.name: row for one in SERVERS for row in one.rows if row.name in wanted}
    _insist_on_installed(parser, options)
    _insist_on_places(parser, options)
    return options


def _insist_on_installed(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What was asked for by name must be there."""
    if options.only and options.source is None:
        for server in SERVERS:
            if any(row.name in options.rows for row in server.rows) and (why := server.missing()):
                parser.error(f"{server.name} is {why}")


def _insist_on_places(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Figures that took minutes must find their place."""
    if options.json and not options.json.absolute().parent.is_dir():
        parser.error(f"there is no folder {options.json.absolute().parent} for --json")
    if options.write:
        try:
            compare_page.around(PAGE.read_text())
        except (OSError, compare_page.MissingMarks) as error:
            parser.error(f"--write cannot write {PAGE}: {error}")


def _compare(options: argparse.Namespace) -> Report:
    settings = Settings(
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        rates=options.rates,
        features=FEATURES,
    )
    about = machine()
    comparison = Comparison(options.rows, settings, _tell)
    began = time.monotonic()
    comparison.run()
    return Report(
        command=shlex.join(["python", "loadtests/compare.py", *sys.argv[1:]]),
        about=about,
        versions=comparison.versions,
        settings=settings,
        took_seconds=float(round(time.monotonic() - began)),
        rows=list(comparison.reports.values()),
    )


def _read(file: Path) -> Report:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Report)
    except (OSError, msgspec.DecodeError) as error:
        sys.exit(f"{file} holds no figures of a comparison: {error}")


def main() -> int:
    """Read the command line, measure, report; 1 if a server was wrong or not to be had."""
    options = read_command_line()
    # Ended politely it cleans up; killed outright, its children see that and end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        report = _compare(options) if options.source is None else _read(options.source)
    except (BadAnswers, DidNotStart) as error:
        sys.exit(f"the floor cannot be measured: {error}")
    print(compare_page.text(report), end="")
    data = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
    if options.json:
        options.json.write_bytes(data)
    if options.write:
        PAGE.write_text(compare_page.written(PAGE.read_text(), report))
        DATA.write_bytes(data)
        CHART.write_text(compare_chart.chart(report))
        _tell(f"wrote {PAGE} and, beside it, {DATA.name} and {CHART.name}")
    return 1 if failed(report) else 0


if __name__ == "__main__":
    sys.exit(main())
