"""`sluice rollout promote`: go to the next step now, or all the way."""

import click

from serving.cli.output import Output, output_options
from serving.cli.rollout.acting import Wish, act, require_reason, wish_options
from serving.cli.where import Where, gateway_options

__all__ = ["promote"]


@click.command(short_help="Go to the next step now, or all the way.")
@click.argument("model")
@click.option("--full", is_flag=True, help="Skip every step that is left; needs --reason.")
@wish_options
@gateway_options
@output_options
def promote(model: str, *, full: bool, wish: Wish, where: Where, output: Output) -> None:
    """Take the rollout of MODEL to its next step now, whatever is still to be proven.

    Guardrails go on watching, and a breach still stops it. With --full the new version becomes
    production at once, and there is nothing left to compare it with.

    \b
    Examples:
      sluice rollout promote employment --data configs/demo
      sluice rollout promote employment --full --reason "mends an outage" --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    if full:
        require_reason(wish, "--full")
    act("promote", model, full=full, wish=wish, where=where, output=output)
