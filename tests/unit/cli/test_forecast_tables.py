"""What `sluice plan` prints of a forecast."""

import io

from rich.console import Console

from serving.cli.forecast_tables import render_forecast
from serving.config.schema import Approval, Bake, Guardrails, RolloutConfig, Rule, Step
from serving.config.units import Seconds
from serving.rollout.forecast import Traffic, forecast

RULES = [
    Rule(name="errors", metric="error_rate", tolerance=1.0, prove=2.0),
    Rule(name="missing", metric="feature_health", tolerance=1.5),
]


def shown(traffic: Traffic, *steps: Step) -> list[str]:
    """Lines of the table and below it."""
    plan = RolloutConfig(
        canary="v2", steps=[*steps, Step(weight=100.0)], guardrails=Guardrails(rules=RULES)
    )
    console = Console(file=io.StringIO(), width=200)
    console.print(render_forecast("demo", forecast(plan, traffic)))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_steps_and_rules_have_a_line_each() -> None:
    """Rate, requests and keys; events, and how long it takes."""
    traffic = Traffic(rate=100.0, keys=10**9, shares={"errors": 0.005})
    lines = shown(traffic, Step(weight=5.0, bake=Bake(max=Seconds(3600.0))))

    assert lines[0].startswith(
        "demo: rollout of v2 at 100 requests/s of 1,000,000,000 keys, if both versions are alike"
    )
    assert lines[1:5] == [
        "step lasts per s requests keys",
        "1 weight 5 % 12 min 5 18,000 17,997",
        "2 weight 100 % 0 s 100 - -",
        "",
    ]
    assert lines[5] == "step rule events proof after 2 x found after smallest found"
    assert lines[6].startswith("1 errors 90 12 min ")
    assert lines[7] == "missing not known"


def test_what_is_not_known_says_how_to_tell_it() -> None:
    """Once, however many steps there are."""
    steps = [Step(weight=weight, bake=Bake(min=Seconds(60.0))) for weight in (5.0, 25.0)]
    lines = shown(Traffic(rate=100.0, shares={"errors": 0.005}), *steps)

    assert [line for line in lines if "--share" in line] == [
        "! how often the event of `missing` happens is not known; give --share missing=SHARE"
    ]


def test_what_a_step_cannot_see_stands_below() -> None:
    """With the number of the step."""
    few = Traffic(rate=1.0, shares={"errors": 0.005})
    lines = shown(few, Step(weight=1.0, bake=Bake(max=Seconds(600.0), min_samples=1000)))

    assert any(
        line.startswith("! step 1: weight 1 % for at most 10 min gets about 6 requests")
        for line in lines
    )
    assert any(
        line.startswith("! step 1: weight 1 % for at most 10 min sees 0.03") for line in lines
    )


def test_an_approval_takes_as_long_as_it_takes() -> None:
    """And a plan that never ends says so."""
    lines = shown(Traffic(rate=0.0), Step(approve=Approval(group="ml")), Step(weight=5.0))

    assert lines[2] == "1 approval of ml ? - - -"
    assert "0 requests/s" in lines[0]
