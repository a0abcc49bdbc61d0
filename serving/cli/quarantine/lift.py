"""`sluice quarantine lift`: let a version back."""

import sys

import click

from serving.cli.output import CommandError, Output, output_options
from serving.cli.where import Where, gateway_options

__all__ = ["lift"]


@click.command(short_help="Let a version back.")
@click.argument("model")
@click.argument("version")
@click.option("--yes", is_flag=True, help="Do not ask.")
@gateway_options
@output_options
def lift(model: str, version: str, *, yes: bool, where: Where, output: Output) -> None:
    """Let VERSION of MODEL back into the traffic, and wait until the workers have loaded it.

    Its crashes are forgotten: two more within a minute put it back. Exits with 1 if it is not in
    quarantine, or if a worker has not loaded it after ten seconds.

    \b
    Examples:
      sluice quarantine lift employment v2 --data configs/demo
      sluice quarantine lift employment v2 --data configs/demo --yes --json
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from urllib.parse import quote

    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.control.admin.answers import LiftAnswer

    if not yes and (output.json or not sys.stdin.isatty()):
        raise click.UsageError("nobody is there to be asked; give --yes")
    if not yes:
        click.confirm(
            f"Let {model}/{version} back? It may crash workers again.", abort=True, err=True
        )
    path = f"/api/v1/quarantine/{quote(model, safe='')}/{quote(version, safe='')}/lift"
    with AdminClient(find_admin(where), where.token()) as client:
        answer = client.post(path, {}, LiftAnswer)
    output.answer(answer, lambda: f"{model}/{version} is let back")
    if answer.waiting:
        raise CommandError(
            f"{', '.join(answer.waiting)} had not loaded it after ten seconds",
            hint="`sluice status` and the worker's log show why",
        )
