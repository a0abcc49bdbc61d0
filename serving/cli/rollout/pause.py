"""`sluice rollout pause`: leave traffic as it is."""

import click

from serving.cli.output import Output, output_options
from serving.cli.rollout.acting import Wish, act, wish_options
from serving.cli.where import Where, gateway_options

__all__ = ["pause"]


@click.command(short_help="Leave traffic as it is, and go no further.")
@click.argument("model")
@wish_options
@gateway_options
@output_options
def pause(model: str, *, wish: Wish, where: Where, output: Output) -> None:
    """Hold the rollout of MODEL where it is: nobody's version changes, and no step follows.

    Evidence is still gathered. A breach of a rule that aborts aborts it all the same. Time that it
    is paused does not count as baking.

    \b
    Examples:
      sluice rollout pause employment --reason "release freeze" --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    act("pause", model, wish=wish, where=where, output=output)
