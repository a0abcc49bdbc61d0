"""`sluice apply DIR`: make the running gateway serve this configuration."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from serving.cli.output import CommandError, Output, output_options, plain_table
from serving.cli.roll import progress_line, roll_failure
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from rich.table import Table

    from serving.control.admin.answers import ApplyAnswer

__all__ = ["apply"]


@click.command(short_help="Make the running gateway serve this configuration.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--watch",
    is_flag=True,
    help="Go on until Ctrl-C, and apply each change that passes `check`, without asking.",
)
@click.option(
    "--expected-revision",
    type=click.IntRange(min=0),
    metavar="N",
    help="Refuse if another revision than N is served [default: the one the plan was made for].",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the history.")
@click.option(
    "--wait",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, 60),
    metavar="SECONDS",
    help="How long to wait for the workers.",
)
@gateway_options
@output_options
def apply(
    directory: Path,
    *,
    yes: bool,
    watch: bool,
    expected_revision: int | None,
    reason: str,
    wait: float,
    where: Where,
    output: Output,
) -> None:
    """Show what would change, ask, change it, and wait until every worker serves it.

    Traffic, models, features and the number of workers change while everything runs. A line marked
    `(rolls workers)` has each worker replaced by one with the new settings, one at a time and
    without losing a request; `(restarts control)` concerns no prediction; `(needs restart)` changes
    nothing until `sluice up` is started again.

    Exits with 1 if the configuration must not be served, if somebody else was faster, if a worker
    does not serve it in the end, or if the new workers do not come to serve; what was served
    before then goes on there.

    With `--watch` a change is applied once the files have stood still for two seconds. One with
    mistakes is not: they are named once, and what was served before goes on. DIR may be a symbolic
    link that is turned to another directory, as git-sync and Kubernetes do.

    \b
    Examples:
      sluice apply configs/demo
      sluice apply configs/demo --yes --reason "v2 for everybody"
      sluice apply configs/demo --watch
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.cli.plan import plan_text
    from serving.control.admin.answers import ApplyAnswer
    from serving.control.admin.questions import ApplyRequest, PlanRequest

    if watch:
        _watch(directory, where, expected_revision, reason=reason, wait=wait, output=output)
    if not yes and (output.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes")
    where_from = str(directory.absolute())
    with AdminClient(find_admin(where, directory), where.token()) as client:
        if not yes:
            planned = client.post(
                "/api/v1/config/plan", PlanRequest(directory=where_from), ApplyAnswer
            )
            output.say(plan_text(planned))
            if not _changes_anything(planned):
                return
            click.confirm("Apply this?", abort=True, err=True)
            if expected_revision is None:
                expected_revision = planned.revision
        answer = client.post(
            "/api/v1/config/apply",
            ApplyRequest(
                directory=where_from,
                expected_revision=expected_revision,
                reason=reason,
                wait_seconds=wait,
            ),
            ApplyAnswer,
        )
    for warning in answer.warnings:
        output.note(warning)
    if yes:
        output.answer(answer, lambda: plan_text(answer))
    output.say(_summary(answer))
    if answer.plan.is_followed and not answer.roll.done and not answer.roll.failed:
        output.note(f"{progress_line(answer.roll)}; `sluice status` shows the rest")
    if answer.workers:
        output.say(_table(answer))
    _insist(answer)


def _watch(
    directory: Path,
    where: Where,
    expected_revision: int | None,
    *,
    reason: str,
    wait: float,
    output: Output,
) -> NoReturn:
    """Apply each change until Ctrl-C; never returns."""
    if expected_revision is not None:
        raise click.UsageError("--watch applies more than once; leave out --expected-revision")
    import asyncio

    from serving.cli.watching import Watcher, keep_looking, through_control
    from serving.clock import SystemClock

    def say(words: str, wrong: bool) -> None:
        if output.json:
            output.machine({"applied": not wrong, "words": words})
        elif wrong:
            output.note(words)
        else:
            output.say(words)

    apply_it = through_control(directory, where, reason=reason or "watch", wait=wait)
    output.note(f"watching {directory}; Ctrl-C ends it")
    asyncio.run(keep_looking(Watcher(directory, apply_it, say, SystemClock())))


def _changes_anything(planned: "ApplyAnswer") -> bool:
    return not planned.plan.serves_the_same


def _summary(answer: "ApplyAnswer") -> str:
    if not answer.published and answer.plan.changes:
        return "nothing that can change while the gateway runs; start it again for the rest"
    if not answer.published:
        return f"revision {answer.revision} serves this already"
    return f"published revision {answer.revision}"


def _table(answer: "ApplyAnswer") -> "Table":
    table = plain_table("worker", "state", "revision", f"serves {answer.revision}")
    for worker in answer.workers:
        said = "yes" if worker.applied else f"refused: {worker.refused}"
        if not worker.applied and not worker.refused:
            said = "not yet"
        table.add_row(worker.worker, worker.state, str(worker.revision), said)
    return table


def _insist(answer: "ApplyAnswer") -> None:
    """Exit with 1 if a worker does not serve the revision; what it said is in the table."""
    if answer.roll.failed:
        raise roll_failure(answer.roll)
    missing = [worker for worker in answer.workers if not worker.applied]
    if not answer.workers:
        raise CommandError(
            "no worker is running, so nobody serves it yet", hint="`sluice status` shows why"
        )
    if missing:
        raise CommandError(
            f"{len(missing)} of {len(answer.workers)} workers do not serve revision "
            f"{answer.revision}",
            hint="they go on with what they had; `sluice status` shows how they are",
        )
