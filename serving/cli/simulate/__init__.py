"""`sluice simulate`: what a policy would do, before it does it."""

from typing import Final

import click

from serving.cli.app import LazyGroup

__all__ = ["simulate"]

_COMMANDS: Final = {
    "autoscale": "Replay a load through the policy that scales the workers.",
}


@click.group(
    cls=LazyGroup,
    table=_COMMANDS,
    package="serving.cli.simulate",
    short_help="Try a policy on a recorded or made-up load.",
)
def simulate() -> None:
    """Try a policy on a recorded or made-up load. Nothing runs, nothing is changed.

    \b
    Examples:
      sluice simulate autoscale --shape day --low 200 --peak 9000 --max 4
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
