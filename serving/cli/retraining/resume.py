"""`sluice retraining resume`: a person has looked."""

import sys

import click

from serving.cli.output import Output, output_options
from serving.cli.retraining.standing import show, tell
from serving.cli.where import Where, gateway_options

__all__ = ["resume"]


@click.command(short_help="Say that a person has looked.")
@click.argument("model")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gateway_options
@output_options
def resume(model: str, *, yes: bool, where: Where, output: Output) -> None:
    """Forget MODEL's trainings in vain and begin its budget anew: a person has looked.

    \b
    Examples:
      sluice retraining resume employment --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    if not yes and (output.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes")
    if not yes:
        click.confirm(f"Let {model} ask for training again?", abort=True, err=True)
    show(tell(where, model, "resume", {}), output)
