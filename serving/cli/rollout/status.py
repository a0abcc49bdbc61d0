"""`sluice rollout status`: where rollouts are, and what they wait for."""

import time

import click

from serving.cli.output import Output, output_options
from serving.cli.where import Where, gateway_options

__all__ = ["status"]


@click.command(short_help="Show where rollouts are and what is still needed.")
@click.argument("model", required=False)
@gateway_options
@output_options
def status(model: str | None, *, where: Where, output: Output) -> None:
    """Show where the rollout of MODEL is, or that of every model.

    For each rule: how many keys (or requests, copies, labels) had the event with the new version
    and with production, the ratio of the two with an interval that holds however often one looks,
    the verdict, and how near the proof is that the next step needs.

    \b
    regressed   it is proven that the new version does worse than `tolerance` allows
    ok          it is proven to stay below `prove`; or there is none, and nothing is wrong
    undecided   neither of both so far
    no data     nothing to judge by; that is neither good nor bad

    \b
    Examples:
      sluice rollout status --data configs/demo
      sluice rollout status employment --data configs/demo
      sluice rollout status employment --data configs/demo --json | jq .phase
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.rollout.calls import RolloutClient
    from serving.cli.rollout.tables import overview_table, standing_view

    with RolloutClient(where) as client:
        if model is not None:
            standing = client.standing(model)
            output.answer(standing, lambda: standing_view(standing, time.time()))
            return
        standings = client.all()
    output.answer(standings, lambda: overview_table(standings, time.time()))
    if not standings:
        output.note(
            "no rollouts: one begins when `sluice apply` brings a model with a section `rollout`"
        )
