"""`sluice drift`: what traffic is compared with."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["drift"]

_COMMANDS: Final = {
    "freeze": "Make a model's reference from a table or from the log.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.drift",
    short_help="Freeze what traffic is compared with.",
)
def drift() -> None:
    """Freeze what a model's traffic is compared with.

    \b
    Examples:
      sluice drift freeze employment --config configs/demo --table people.parquet --out ref.json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
