"""`sluice retraining ask`: ask for a training because a person wants it."""

import sys

import click

from serving.cli.output import Output, output_options
from serving.cli.retraining.standing import show, tell
from serving.cli.where import Where, gateway_options

__all__ = ["ask"]


@click.command(short_help="Ask for a training now.")
@click.argument("model")
@click.option("--reason", default="", metavar="TEXT", help="Why; it is part of the event.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gateway_options
@output_options
def ask(model: str, *, reason: str, yes: bool, where: Where, output: Output) -> None:
    """Ask whom `monitoring.retrain` of MODEL names for a training, whatever the numbers say.

    It counts against the budget, and is refused as long as another training is running.

    \b
    Examples:
      sluice retraining ask employment --reason "new survey form" --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    if not yes and (output.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes")
    if not yes:
        click.confirm(f"Ask for a training of {model}?", abort=True, err=True)
    from serving.control.admin.questions import RetrainingAsk

    show(tell(where, model, "ask", RetrainingAsk(reason=reason)), output)
