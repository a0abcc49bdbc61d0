"""`sluice retraining status`: where a model stands."""

import click

from serving.cli.output import Output, output_options
from serving.cli.retraining.standing import show, tell
from serving.cli.where import Where, gateway_options

__all__ = ["status"]


@click.command(short_help="Show what was asked for, and why nothing is asked now.")
@click.argument("model")
@gateway_options
@output_options
def status(model: str, *, where: Where, output: Output) -> None:
    """Show what was asked for MODEL, what became of it, and why nothing is asked now.

    \b
    Examples:
      sluice retraining status employment --data configs/demo
      sluice retraining status employment --data configs/demo --json | jq .request.stage
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    show(tell(where, model, "", None), output)
