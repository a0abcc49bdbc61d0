"""`sluice rollout history`: who did what, when, why, and on what evidence."""

import click

from serving.cli.output import Output, output_options
from serving.cli.where import Where, gateway_options

__all__ = ["history"]


@click.command(short_help="Show who did what, when, why, on what evidence.")
@click.argument("model")
@gateway_options
@output_options
def history(model: str, *, where: Where, output: Output) -> None:
    """Show everything that happened in rollouts of MODEL, the latest rollout first.

    `controller` is the gateway itself. Below each reason stands what every rule had seen by then.

    \b
    Examples:
      sluice rollout history employment --data configs/demo
      sluice rollout history employment --data configs/demo --json | jq .rollouts[0].id
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.rollout.calls import RolloutClient
    from serving.cli.rollout.tables import history_table

    with RolloutClient(where) as client:
        told = client.history(model)
    output.answer(told, lambda: history_table(told.rollouts))
