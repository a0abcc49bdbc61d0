"""`sluice rollout retry`: begin again what was stopped."""

import click

from serving.cli.output import Output, output_options
from serving.cli.rollout.acting import Wish, act, require_reason, wish_options
from serving.cli.where import Where, gateway_options

__all__ = ["retry"]


@click.command(short_help="Begin a rollout again that was stopped.")
@click.argument("model")
@wish_options
@gateway_options
@output_options
def retry(model: str, *, wish: Wish, where: Where, output: Output) -> None:
    """Begin a new rollout of MODEL with the file that was stopped, from its first step.

    Neither `after_abort.cooldown` nor `block_same_digest` stands in its way. Its evidence begins
    anew, and so does the chance to be wrong that `alpha` allows.

    \b
    Examples:
      sluice rollout retry employment --reason "the feature store was down" --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    require_reason(wish, "a retry")
    act("retry", model, wish=wish, where=where, output=output)
