"""`sluice retraining ended`: a training is over."""

import click

from serving.cli.output import Output, output_options
from serving.cli.retraining.standing import show, tell
from serving.cli.where import Where, gateway_options

__all__ = ["ended"]


@click.command(short_help="Say that a training is over.")
@click.argument("model")
@click.option(
    "--improved/--not-improved",
    default=None,
    help="Whether its result does better than what it should replace.",
)
@gateway_options
@output_options
def ended(model: str, *, improved: bool | None, where: Where, output: Output) -> None:
    """Say that the training of MODEL is over, and whether it improved anything.

    After three in a row that did not, nothing is asked for until a person has looked (`sluice
    retraining resume`).

    \b
    Examples:
      sluice retraining ended employment --improved --data configs/demo
      sluice retraining ended employment --not-improved --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    if improved is None:
        raise click.UsageError("say --improved or --not-improved")
    from serving.control.admin.questions import RetrainingEnd

    show(tell(where, model, "ended", RetrainingEnd(improved=improved)), output)
