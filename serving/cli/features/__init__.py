"""`sluice features`: what the online feature store holds, and how it gets there."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["features"]

_COMMANDS: Final = {
    "load": "Load a Parquet or CSV file into a view.",
    "get": "Show what a model would be given for one entity.",
    "erase": "Remove one subject from every view, for good.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.features",
    short_help="Load, show and erase online features.",
)
def features() -> None:
    """Load, show and erase online features.

    They are in the store that `features.store` or `store` of gateway.yaml names. An embedded
    store runs with its gateway, so the gateway has to be up.

    \b
    Examples:
      sluice features load people.parquet --view person_profile --config configs/demo
      sluice features get --entity person_id=42 --config configs/demo
      sluice features erase --entity person_id=7 --config configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
