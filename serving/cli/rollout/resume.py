"""`sluice rollout resume`: go on."""

import click

from serving.cli.output import Output, output_options
from serving.cli.rollout.acting import Wish, act, wish_options
from serving.cli.where import Where, gateway_options

__all__ = ["resume"]


@click.command(short_help="Go on with a rollout that is paused.")
@click.argument("model")
@wish_options
@gateway_options
@output_options
def resume(model: str, *, wish: Wish, where: Where, output: Output) -> None:
    """Go on with the rollout of MODEL from the step it is at.

    If a rule has paused it, this says that a person has looked: that rule does not pause this
    rollout again.

    \b
    Examples:
      sluice rollout resume employment --reason "the shift is meant" --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    act("resume", model, wish=wish, where=where, output=output)
