"""`sluice labels`: what came true of predictions."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["labels"]

_COMMANDS: Final = {
    "load": "Load a Parquet, CSV or NDJSON file of labels.",
    "status": "Show how many predictions have a label, and how long labels take.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.labels",
    short_help="Say what came true of predictions.",
)
def labels() -> None:
    """Say what came true of predictions, and how much of it is known.

    A label belongs to a prediction by the `prediction_id` of its answer, or to the newest
    prediction of an entity at a time. `sluice performance MODEL` is what they are for.

    \b
    Examples:
      sluice labels load outcomes.csv --model employment --data configs/demo
      sluice labels status employment --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
