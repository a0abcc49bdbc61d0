"""`sluice quarantine list`: what is kept out, since when, and why."""

import time
from typing import TYPE_CHECKING

import click

from serving.cli.output import Output, output_options, plain_table
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from rich.table import Table

    from serving.control.admin.answers import QuarantineAnswer

__all__ = ["list"]


@click.command(short_help="Show versions that get no requests because they crashed workers.")
@gateway_options
@output_options
def list(*, where: Where, output: Output) -> None:  # noqa: A001 - the command's name
    """Show every version in quarantine: since when, after how many crashes, and why.

    \b
    Examples:
      sluice quarantine list --data configs/demo
      sluice quarantine list --data configs/demo --json | jq .quarantined
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.control.admin.answers import QuarantineAnswer

    with AdminClient(find_admin(where), where.token()) as client:
        answer = client.get("/api/v1/quarantine", QuarantineAnswer)
    if not answer.quarantined:
        output.note("no version is in quarantine")
    output.answer(answer, lambda: _table(answer) if answer.quarantined else "")


def _table(answer: "QuarantineAnswer") -> "Table":
    from serving.cli.span import age

    table = plain_table("model", "version", "for", "crashes", "why")
    for one in answer.quarantined:
        kept_out = age(time.time() - one.since)
        table.add_row(one.model, one.version, kept_out, str(one.crashes), one.reason)
    return table
