"""`sluice retraining`: requests for training, and what became of them."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["retraining"]

_COMMANDS: Final = {
    "status": "Show what was asked for, what became of it, and why nothing is asked now.",
    "ask": "Ask for a training now.",
    "ended": "Say that a training is over.",
    "resume": "Say that a person has looked.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.retraining",
    short_help="Show and steer requests for training.",
)
def retraining() -> None:
    """Show and steer requests for training.

    A gateway asks whom `monitoring.retrain` names when a model in production does worse, by its
    labels, than it did in the beginning. It only asks; what comes back is a shadow first.

    \b
    Examples:
      sluice retraining status employment --data configs/demo
      sluice retraining ended employment --improved --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
