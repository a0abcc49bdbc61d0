"""`sluice log`: what was predicted, from what, and why."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["log"]

_COMMANDS: Final = {
    "tail": "Show the newest rows, and those that come.",
    "query": "Ask the log in SQL.",
    "models": "Show how many rows there are of each model, and of what time.",
    "verify": "Read every byte, and account for every row that was offered.",
    "erase": "Remove every row of one subject, for good.",
    "ship": "Copy the log to S3, Kafka or Delta Lake.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.log",
    short_help="Read, check, erase and ship the prediction log.",
)
def log() -> None:
    """Read, check, erase and ship the prediction log.

    A gateway with `log:` in gateway.yaml keeps a row for every prediction: which version answered
    and why, the features the model got and how old they were, what it said, and how long each step
    took. These commands work on its files, whether the gateway runs or not.

    \b
    Examples:
      sluice log tail employment --data configs/demo
      sluice log query "SELECT version, count(*) FROM predictions GROUP BY ALL" --data configs/demo
      sluice log verify --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
