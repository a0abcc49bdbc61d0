"""`sluice plan DIR`: what `apply` would change, and what a rollout could be expected to see."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from serving.cli.output import Output, output_options
from serving.cli.where import Where, gateway_options

if TYPE_CHECKING:
    from rich.text import Text

    from serving.control.admin.answers import ApplyAnswer

__all__ = ["plan", "plan_text"]


def _shares(
    ctx: click.Context, option: click.Parameter, texts: tuple[str, ...]
) -> dict[str, float]:
    """Read `RULE=SHARE`, for click."""
    del ctx
    shares = {}
    for text in texts:
        rule, equals, number = text.partition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not rule or not equals or not 0 <= share <= 1:
            message = f"`{text}` is not RULE=SHARE, such as slow=0.02"
            raise click.BadParameter(message, param=option)
        shares[rule] = share
    return shares


@click.command(short_help="Show what `apply` would change in the running gateway.")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--rps",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Forecast rollouts for so many requests a second of each model [default: what is seen].",
)
@click.option(
    "--error-rate",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Share of production's requests that fail, such as 0.005 [default: what is seen].",
)
@click.option(
    "--share",
    "shares",
    multiple=True,
    callback=_shares,
    metavar="RULE=SHARE",
    help="Share of production's requests with the event of a rule, such as slow=0.02.",
)
@click.option(
    "--keys",
    type=click.IntRange(min=1),
    metavar="N",
    help="Different assignment keys that come; each counts once [default: as many as requests].",
)
@gateway_options
@output_options
def plan(
    directory: Path,
    *,
    rps: float | None,
    error_rate: float | None,
    shares: dict[str, float],
    keys: int | None,
    where: Where,
    output: Output,
) -> None:
    """Compare the configuration in DIR with what the running gateway serves.

    Of a model with a `rollout` it says, step by step, how many requests the new version gets, how
    long proofs take, how soon a doubling is found, and the smallest regression that is found by
    the end of the step: on average, at the traffic that the gateway sees or that is given here;
    and whether an abort before keeps it from beginning.

    Changes nothing. Exits with 1 if the configuration must not be served.

    \b
    Examples:
      sluice plan configs/demo
      sluice plan configs/demo --rps 100 --error-rate 0.005
      sluice plan configs/demo --json | jq .plan.moved_keys
    """  # noqa: D301  - \b keeps click from re-wrapping the examples
    from serving.cli.admin_address import find_admin
    from serving.cli.client import AdminClient
    from serving.cli.forecast_tables import render_forecast
    from serving.control.admin.answers import ApplyAnswer
    from serving.control.admin.questions import PlanRequest

    request = PlanRequest(
        directory=str(directory.absolute()),
        rps=rps,
        error_rate=error_rate,
        keys=keys,
        shares=shares,
    )
    with AdminClient(find_admin(where, directory), where.token()) as client:
        answer = client.post("/api/v1/config/plan", request, ApplyAnswer)
    for warning in answer.warnings:
        output.note(warning)
    output.note(f"against revision {answer.revision}:")
    output.answer(answer, lambda: plan_text(answer))
    for model, one in answer.forecasts.items():
        output.say()
        output.say(render_forecast(model, one))


def plan_text(answer: "ApplyAnswer") -> "Text":
    """The plan's lines, coloured by what they do."""
    from rich.text import Text

    styles = {"+": "green", "-": "red", "~": "yellow"}
    lines = [Text(line, style=styles.get(line[:1], "")) for line in answer.lines]
    lines += [
        Text(f"! {model}: its rollout does not begin by itself: {why}", style="yellow")
        for model, why in answer.held.items()
    ]
    return Text("\n").join(lines)
