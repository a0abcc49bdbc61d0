"""`sluice rollout`: how a new version becomes production, and who may say otherwise."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["rollout"]

_COMMANDS: Final = {
    "status": "Show where rollouts are, what each rule has seen, and what is still needed.",
    "watch": "Show a rollout live, until it ends.",
    "history": "Show who did what to a model's rollouts, when, why, on what evidence.",
    "promote": "Go to the next step now, or all the way.",
    "pause": "Leave traffic as it is, and go no further.",
    "resume": "Go on with a rollout that is paused.",
    "approve": "Agree to a step that asks for it.",
    "abort": "Take all traffic back to production.",
    "retry": "Begin a rollout again that was stopped.",
    "simulate": "Run a plan against made-up traffic, and see how often it is wrong.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.rollout",
    short_help="Show and steer how a new version becomes production.",
)
def rollout() -> None:
    """Show and steer how a new version becomes production.

    A rollout begins when `apply` brings a model whose file has a section `rollout`. From then on
    the gateway moves traffic by itself, from step to step, as far as the evidence carries; these
    commands show how far that is, and let a person decide otherwise.

    \b
    Examples:
      sluice rollout status --data configs/demo
      sluice rollout status employment --data configs/demo
      sluice rollout history employment --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
