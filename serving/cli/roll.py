"""`sluice roll`: replace every process by one of the code that is on disk now."""

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from serving.cli.output import CommandError, Output, Unreachable, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from serving.cli.client import AdminClient
    from serving.control.fleet.rolls import RollStatus

__all__ = ["progress_line", "roll", "roll_failure"]

_POLL_SECONDS: Final = 0.25


@click.command(short_help="Replace workers and control by the code on disk, losing no request.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the gateway's log.")
@click.option(
    "--wait",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long to watch. The gateway goes on by itself after that.",
)
@gateway_options
@output_options
def roll(*, yes: bool, reason: str, wait: float, where: Where, output: Output) -> None:
    """Take over a new version of Sluice: replace every process, one at a time.

    For each worker a new one is started from the code that is on disk now. Once it serves, the old
    one leads new connections elsewhere, answers what it has, closes its connections politely and
    ends; then comes the next. The control process is last. Requests are answered all the while.

    A new worker that does not come to serve is ended, the old ones stay, and the reason is shown
    (exit 1). `sluice up` itself, and with Ray its replicas, keep the code they were started with.

    \b
    Examples:
      sluice roll --data configs/demo
      sluice roll --data configs/demo --yes --reason "upgrade to 0.4.2"
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.control.admin.answers import RollAnswer
    from serving.control.admin.questions import RollRequest

    if not yes and (output.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes")
    with AdminClient(find_admin(where), where.token()) as client:
        if not yes:
            click.confirm("Replace every process, one at a time?", abort=True, err=True)
        answer = client.post("/api/v1/roll", RollRequest(reason=reason), RollAnswer)
        status = _watch(client, answer.generation, wait, output)
    output.answer(status)
    if status.failed:
        raise roll_failure(status)
    if not status.done:
        output.note(f"not done after {wait:g} s; `sluice status` shows how far it is")
    else:
        output.say("every process is new")


def progress_line(status: "RollStatus") -> str:
    """How far it is, for people."""
    line = f"{status.rolled} of {status.workers} workers are new"
    return line + (", control follows" if status.control else "")


def roll_failure(status: "RollStatus") -> CommandError:
    """Why it stopped, as an error."""
    return CommandError(
        f"the workers were not replaced: {status.failed}",
        hint="those that run go on as they were; mend it, then `sluice roll`",
    )


def _watch(client: "AdminClient", generation: int, wait: float, output: Output) -> "RollStatus":
    """Say what changes until it is done, has failed, or `wait` is over."""
    from serving.control.admin.answers import Status
    from serving.control.fleet.rolls import RollStatus

    seen = RollStatus(generation=generation, done=False)
    said = ""
    until = time.monotonic() + wait
    while time.monotonic() < until:
        try:
            status = client.get("/api/v1/status", Status).roll
        except Unreachable:  # control itself is being replaced
            status = seen
        # A control process that has just begun may not have heard of anybody yet.
        if status.generation >= generation and status.workers:
            seen = status
            if (line := progress_line(seen)) != said:
                output.note(line)
                said = line
            if seen.done or seen.failed:
                break
        time.sleep(_POLL_SECONDS)
    return seen
