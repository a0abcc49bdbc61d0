"""`sluice plan DIR`: what `apply` would change."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.output import Output, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from rich.text import Text

    from serving.control.answers import ApplyAnswer

__all__ = ["plan", "plan_text"]


@click.command(short_help="Show what `apply` would change in the running gateway.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@gateway_options
@output_options
def plan(directory: Path, *, where: Where, output: Output) -> None:
    """Compare the configuration in DIR with what the running gateway serves.

    Changes nothing. Exits with 1 if the configuration must not be served.

    \b
    Examples:
      sluice plan configs/demo
      sluice plan configs/demo --json | jq .plan.moved_keys
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.control.answers import ApplyAnswer, PlanRequest

    request = PlanRequest(directory=str(directory.absolute()))
    with AdminClient(find_admin(where, directory), where.token()) as client:
        answer = client.post("/api/v1/config/plan", request, ApplyAnswer)
    for warning in answer.warnings:
        output.note(warning)
    output.note(f"against revision {answer.revision}:")
    output.answer(answer, lambda: plan_text(answer))


def plan_text(answer: "ApplyAnswer") -> "Text":
    """The plan's lines, coloured by what they do."""
    from rich.text import Text

    styles = {"+": "green", "-": "red", "~": "yellow"}
    return Text("\n").join(Text(line, style=styles.get(line[:1], "")) for line in answer.lines)
