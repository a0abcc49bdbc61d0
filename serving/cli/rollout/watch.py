"""`sluice rollout watch`: a rollout live, until it ends."""

import time
from typing import TYPE_CHECKING, Final

import click

from serving.cli.output import CommandError, Output, Unreachable, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from serving.cli.rollout.calls import RolloutClient
    from serving.cli.rollout.screen import Screen
    from serving.rollout.standing import RolloutStanding

__all__ = ["watch"]

_PATIENCE_SECONDS: Final = 120.0
"""How long control may not answer: it may be being replaced."""


@click.command(short_help="Show a rollout live, until it ends.")
@click.argument("model")
@click.option(
    "--until",
    type=click.Choice(["step", "done"]),
    default="done",
    show_default=True,
    help="End with the rollout, or already when it reaches another step.",
)
@click.option(
    "--every",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="How often to look.",
)
@gateway_options
@output_options
def watch(model: str, *, until: str, every: float, where: Where, output: Output) -> None:
    """Show the rollout of MODEL as it goes, until it ends; Ctrl-C ends only the watching.

    On a terminal the picture is redrawn in place. Elsewhere each change is a line, with --json a
    line of JSON. Exits with 0 when the new version is production (with `--until step` also when
    another step is reached), with 1 when the rollout was aborted.

    \b
    Examples:
      sluice rollout watch employment --until step --data configs/demo
      sluice rollout watch employment --data configs/demo --json | jq .phase
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.rollout.calls import RolloutClient
    from serving.cli.rollout.screen import screen_for

    with RolloutClient(where) as client:
        first = client.standing(model)
        with screen_for(output) as screen:
            last = _follow(client, screen, first, until=until, every=every)
    if last.id != first.id:
        raise CommandError(
            f"{first.id} is over: {last.id} has taken its place",
            hint=f"`sluice rollout history {model}` says why",
        )
    if last.phase == "aborted":
        raise CommandError(
            f"{last.id} was aborted{f': {last.reason}' if last.reason else ''}",
            hint=f"`sluice rollout history {model}` shows the evidence",
        )


def _follow(
    client: "RolloutClient",
    screen: "Screen",
    first: "RolloutStanding",
    *,
    until: str,
    every: float,
) -> "RolloutStanding":
    """Look again and again; the last one seen."""
    from serving.cli.rollout.words import is_over

    seen = first
    heard = time.monotonic()
    screen.show(seen)
    while not is_over(seen) and seen.id == first.id:
        if until == "step" and seen.step != first.step:
            break
        time.sleep(every)
        try:
            seen = client.standing(first.model)
        except Unreachable as error:
            if time.monotonic() - heard > _PATIENCE_SECONDS:
                raise
            screen.trouble(error.message)
            continue
        heard = time.monotonic()
        screen.show(seen)
    return seen
