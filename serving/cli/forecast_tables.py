"""A forecast for people: steps, what rules see in them, and below it what they cannot see."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from serving.cli.output import plain_table
from serving.rollout.forecast import Forecast, RuleForecast
from serving.rollout.forecast_words import span

__all__ = ["render_forecast"]


def render_forecast(model: str, forecast: Forecast) -> Group:
    """The forecast of one model."""
    return Group(
        Text(_title(model, forecast), style="bold"),
        _steps(forecast),
        Text(),
        _rules(forecast),
        *(Text(f"! {words}", style="yellow") for words in _warnings(forecast)),
    )


def _title(model: str, forecast: Forecast) -> str:
    keys = f" of {forecast.keys:,} keys" if forecast.keys is not None else ""
    takes = (
        "it never gets to the end"
        if forecast.expected is None
        else f"about {span(forecast.expected)} without approvals and labels"
    )
    return (
        f"{model}: rollout of {forecast.canary} at {forecast.rate:.3g} requests/s{keys}, if both "
        f"versions are alike: {takes}"
    )


def _steps(forecast: Forecast) -> Table:
    table = plain_table("step", "lasts", "per s", "requests", "keys")
    for step in forecast.steps:
        lasts = "?" if step.expected is None else span(step.expected)
        if step.expected is not None and step.expected == step.at_most:
            lasts = f"{lasts} (max)"
        rate = step.canary_rate or step.copies_rate
        table.add_row(
            f"{step.step}  {step.words}",
            lasts,
            f"{rate:.3g}" if rate else "-",
            _count(step.requests),
            _count(step.keys),
        )
    return table


def _rules(forecast: Forecast) -> Table:
    table = plain_table(
        "step", "rule", "events", "proof after", "2 x found after", "smallest found"
    )
    for step in forecast.steps:
        for position, rule in enumerate(step.rules):
            table.add_row(str(step.step) if position == 0 else "", *_rule(rule))
    return table


def _rule(rule: RuleForecast) -> tuple[str, ...]:
    if rule.share is None:
        return (rule.rule, "not known", "", "", "")
    return (
        rule.rule,
        _count(rule.canary_events),
        "-" if rule.proof_seconds is None else span(rule.proof_seconds),
        "never" if rule.doubled_seconds is None else span(rule.doubled_seconds),
        "-" if rule.smallest is None else f"{rule.smallest:.3g} x",
    )


def _warnings(forecast: Forecast) -> list[str]:
    found = [
        f"step {step.step}: {words}"
        for step in forecast.steps
        for words in (*step.unreachable, *step.warnings)
    ]
    unknown = dict.fromkeys(
        rule.rule for step in forecast.steps for rule in step.rules if rule.share is None
    )
    return found + [
        f"how often the event of `{rule}` happens is not known; give --share {rule}=SHARE"
        for rule in unknown
    ]


def _count(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
