"""`sluice rollout approve`: agree that it goes on."""

import click

from serving.cli.output import Output, output_options
from serving.cli.rollout.acting import Wish, act, wish_options
from serving.cli.where import Where, gateway_options

__all__ = ["approve"]


@click.command(short_help="Agree to a step that asks for it.")
@click.argument("model")
@wish_options
@gateway_options
@output_options
def approve(model: str, *, wish: Wish, where: Where, output: Output) -> None:
    """Agree to go on with the rollout of MODEL, which waits at a step `approve`.

    If nobody does within the step's `timeout`, its `on_timeout` decides.

    \b
    Examples:
      sluice rollout approve employment --reason "FRAUD-812" --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    act("approve", model, wish=wish, where=where, output=output)
