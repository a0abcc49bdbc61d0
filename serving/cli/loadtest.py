"""`sluice loadtest`: requests on a schedule, and a verdict."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from serving.cli.loadtest_quick import NOBODY, Wanted, here, quick_options, quick_text
from serving.cli.output import CommandError, ExitCode, Output, Unreachable
from serving.cli.where import Where, connection_options

if TYPE_CHECKING:
    from serving.loadtest.report.document import Document
    from serving.loadtest.results import Result
    from serving.loadtest.scenario import Scenario
    from serving.loadtest.target import Tls

__all__ = ["loadtest"]

_OPTIONS: Final = "the options"
"""What problems call the text that options stand for, which nobody has seen."""

_FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.command(short_help="Send requests on a schedule and judge the answers.")
@click.argument("scenario", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--target", metavar="URL", help="The listener, in place of the scenario's.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="Length of the run, all phases."
)
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second at the highest."
)
@click.option("--seed", type=int, help="Another schedule than the scenario's.")
@quick_options
@click.option(
    "--against",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A run before (its --json): show each figure in multiples of what it had.",
)
@click.option("--json", "json_file", type=_FILE, help="Write the outcome as JSON; - prints it.")
@click.option("--junit", "junit_file", type=_FILE, help="Write JUnit XML, one case for each SLO.")
@click.option("--html", "html_file", type=_FILE, help="Write a page with plots.")
@click.option("-v", "--verbose", is_flag=True, help="Say more, on standard error.")
@connection_options
def loadtest(
    scenario: Path | None,
    *,
    target: str | None,
    seconds: float | None,
    rate: float | None,
    seed: int | None,
    wanted: Wanted,
    against: Path | None,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
    verbose: bool,
    where: Where,
) -> int:
    """Send the requests of SCENARIO when they are due, and judge the answers by its SLOs.

    A request leaves when its time has come, whatever became of those before it, and its latency
    counts from that time: a slow target is not asked less. SCENARIO is YAML; docs/operations.md
    says what is in it, and loadtests/scenarios has some. Without one, --model and the options
    after it stand for a scenario of one phase; --print writes it out, to be kept and grown.

    The run is invalid if the generator itself was late. Exit codes: 0 every SLO is met; 1 one is
    missed, or the run is invalid; 2 the scenario has mistakes; 3 nobody listens at the target.

    \b
    Examples:
      sluice loadtest loadtests/scenarios/smoke.yaml
      sluice loadtest loadtests/scenarios/smoke.yaml --seconds 3 --html smoke.html
      sluice loadtest loadtests/scenarios/spike.yaml --seconds 4 --rate 100 --junit spike.xml
      sluice loadtest loadtests/scenarios/smoke.yaml --against before.json --json now.json
      sluice loadtest --model employment --rate 200 --seconds 5 --deadline 100ms \\
          --slo p99=50ms --slo error_rate=0.001 --slo goodput=0.99 --print > mine.yaml
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    import asyncio

    from serving.cli.loadtest_progress import progress_for
    from serving.cli.loadtest_tables import shown
    from serving.loadtest.against import compare
    from serving.loadtest.report.machine import machine
    from serving.loadtest.runner import run
    from serving.loadtest.slo import judge
    from serving.loadtest.target import TargetUnreachable

    printed = json_file is not None and str(json_file) == "-"
    output = Output(json=printed, verbose=verbose)
    if scenario is None:
        if not wanted.given:
            raise click.UsageError("give a SCENARIO, or --model for a load of one kind")
        if target is None:
            target, where = here(where)
        text = quick_text(wanted, where, target=target, seconds=seconds, rate=rate)
        asked = _judged(lambda reading: reading.scenario_of(text, _OPTIONS, Path()))
        if wanted.printed:
            click.echo(text, nl=False)
            return ExitCode.OK
    else:
        asked = _read(scenario, wanted, target=target, seconds=seconds, rate=rate)
    if seed is not None:
        asked = msgspec.structs.replace(asked, seed=seed)
    for file in (json_file, junit_file, html_file):
        _may_be_written(file)
    before = None if against is None else _before(against)
    tls = _tls(asked, where)
    try:
        with progress_for(asked.name, silent=printed) as told:
            folder = Path() if scenario is None else scenario.parent
            result: Result = asyncio.run(
                run(asked, folder, token=where.token(), tls=tls, told=told)
            )
    except TargetUnreachable as error:
        hint = NOBODY if tls is None else where.tls.hint(error.message, NOBODY)
        raise Unreachable(error.message, hint=hint) from error
    if before is not None:
        result.against = compare(before, result, machine=machine())
    verdict = judge(result, asked.slos)
    output.say(shown(result, verdict))
    report = _written(result, verdict, json_file, junit_file, html_file)
    if printed:
        output.machine(report)
    return ExitCode.OK if verdict.outcome == "met" else ExitCode.NO


def _read(
    path: Path, wanted: Wanted, *, target: str | None, seconds: float | None, rate: float | None
) -> "Scenario":
    """The scenario of a file, changed by the options, or every mistake in it and exit 2."""
    if wanted.given:
        raise click.UsageError(
            "--model and the options after it stand for a scenario: leave them out, or SCENARIO"
        )
    given = _judged(lambda reading: reading.read_scenario(path))
    if (seconds or rate) and all(phase.trace or phase.log for phase in given.phases):
        raise click.UsageError(
            "--seconds and --rate change made-up loads; a recorded one has `scale` and `speed`"
        )
    from serving.loadtest.reading import override

    return override(given, target=target, seconds=seconds, rate=rate)


def _judged(read: "Callable[[Any], Scenario]") -> "Scenario":
    """What `read` reads, or every mistake in it and exit 2."""
    from serving.cli import output
    from serving.errors import InvalidConfig
    from serving.loadtest import reading
    from serving.loadtest.target import InvalidTarget

    try:
        return read(reading)
    except (InvalidConfig, InvalidTarget) as error:
        for problem in getattr(error, "problems", ()):
            seen = msgspec.structs.replace(problem, line=0) if problem.file == _OPTIONS else problem
            click.echo(str(seen), err=True)
        several = bool(getattr(error, "problems", ()))
        words = "the scenario has mistakes; nothing was sent" if several else error.message
        output.print_error(words)
        raise click.exceptions.Exit(ExitCode.USAGE) from error


def _before(file: Path) -> "Document":
    from serving.loadtest.against import NoBaseline, read_baseline

    try:
        return read_baseline(file)
    except NoBaseline as error:
        raise click.UsageError(f"--against {error.message}") from error


def _may_be_written(file: Path | None) -> None:
    """Say so before the run, and not after an hour of it, if a report has no place."""
    if file is None or str(file) == "-":
        return
    folder = file.parent
    if not folder.is_dir():
        raise click.UsageError(f"there is no folder {folder} to write {file.name} into")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise click.UsageError(f"{file} may not be written")


def _tls(scenario: "Scenario", where: Where) -> "Tls | None":
    """The options' files, for a target that speaks TLS. Raises CommandError."""
    from serving.loadtest.target import InvalidTarget, Tls, parse_target

    try:
        target = parse_target(scenario.target)
    except InvalidTarget as error:
        raise click.UsageError(error.message) from error
    files = where.tls
    if not target.secure:
        return None
    files.context()

    def text(path: Path | None) -> str | None:
        return None if path is None else str(path.resolve())

    key = files.client_key or files.client_cert
    return Tls(
        ca=text(files.authority),
        cert=text(files.client_cert),
        key=text(key),
        partial_chain=files.ca is None and files.pinned is not None,
    )


def _written(
    result: "Result",
    verdict: Any,
    json_file: Path | None,
    junit_file: Path | None,
    html_file: Path | None,
) -> "Document":
    """Make the report and write it where it was asked for. Raises CommandError."""
    from serving.loadtest.report.document import document, to_json
    from serving.loadtest.report.junit import to_junit
    from serving.loadtest.report.machine import machine
    from serving.loadtest.report.page import to_html

    report = document(result, verdict, machine=machine(), command=_command())
    try:
        if json_file is not None and str(json_file) != "-":
            json_file.write_bytes(to_json(report))
        if junit_file is not None:
            junit_file.write_text(to_junit(report), encoding="utf-8")
        if html_file is not None:
            html_file.write_text(to_html(report), encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be written: {error.strerror}") from error
    return report


def _command() -> str:
    import shlex
    import sys

    return shlex.join(["sluice", *sys.argv[1:]])
