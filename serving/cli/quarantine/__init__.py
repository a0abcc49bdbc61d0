"""`sluice quarantine`: versions that crashed workers."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["quarantine"]

_COMMANDS: Final = {
    "list": "Show versions that get no requests because they crashed workers.",
    "lift": "Let a version back.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.quarantine",
    short_help="Show versions that crashed workers, and let one back.",
)
def quarantine() -> None:
    """Show versions that crashed workers, and let one back.

    A version during whose runs, or loading, two worker processes crash within a minute is taken out
    of the traffic; production answers in its place. It stays out until it is let back, or no
    longer configured.

    \b
    Examples:
      sluice quarantine list --data configs/demo
      sluice quarantine lift employment v2 --data configs/demo
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
