"""`sluice rollout abort`: take all traffic back."""

import click

from serving.cli.output import Output, output_options
from serving.cli.rollout.acting import Wish, act, require_reason, wish_options
from serving.cli.where import Where, gateway_options

__all__ = ["abort"]


@click.command(short_help="Take all traffic back to production.")
@click.argument("model")
@wish_options
@gateway_options
@output_options
def abort(model: str, *, wish: Wish, where: Where, output: Output) -> None:
    """Take all traffic of MODEL back to production, within a second.

    The new version stays loaded for `after_abort.keep_warm`, to be looked at by name. The same file
    begins no other rollout unless `sluice rollout retry` says so.

    \b
    Examples:
      sluice rollout abort employment --reason "support tickets" --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    require_reason(wish, "an abort")
    act("abort", model, wish=wish, where=where, output=output)
