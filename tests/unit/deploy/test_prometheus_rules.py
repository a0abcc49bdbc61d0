"""Alert rules: of metrics that exist, with labels they have, in the form Prometheus reads."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_kit import reference, watched

from serving.control.fleet.exposition import own_families
from serving.control.monitoring.drift_families import drift_families
from serving.metric_families import FAMILIES

FILE = Path(__file__).parents[3] / "configs" / "deploy" / "prometheus" / "rules.yaml"
RULES = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]
DURATION = re.compile(r"(\d+(ms|s|m|h|d|w|y))+")


def known() -> dict[str, set[str]]:
    """Every metric's labels, by name."""
    found = {name: set(family.labels) for name, family in FAMILIES.items()}
    own = own_families(
        version="1", revision=0, workers=[], store_up=True, feature_writes={("v", "push", "o"): 1},
        stream_lag={"v": 1}, quarantined=[("m", "v")],
    )  # fmt: skip
    for metric in (*own, *drift_families([watched(reference())])):
        name = metric.name + ("_total" if metric.type == "counter" else "")
        found[name] = {label for sample in metric.samples for label in sample.labels}
    return found


KNOWN = known()


def names(rule: dict[str, Any]) -> list[str]:
    """Metrics in a rule's expression."""
    return re.findall(r"\bsluice_\w+", rule["expr"])


def test_every_alert_has_a_name_of_its_own() -> None:
    """Alertmanager tells them apart by it."""
    alerts = [rule["alert"] for rule in RULES]

    assert len(alerts) == len(set(alerts)) > 5


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_has_what_prometheus_and_a_person_need(rule: dict[str, Any]) -> None:
    """Known keys only: Prometheus refuses a whole file with another one."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"page", "ticket", "info"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert DURATION.fullmatch(rule.get("for", "1s"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_names_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    """Else it would be quiet for ever."""
    found = names(rule)
    said = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))

    assert found
    for name in found:
        assert name in KNOWN
        assert said <= KNOWN[name]
    for name, matchers in re.findall(r"(sluice_\w+)\{([^}]*)\}", rule["expr"]):
        assert set(re.findall(r"(\w+)=", matchers)) <= KNOWN[name]


def test_outcomes_of_lost_rows_are_those_that_are_counted() -> None:
    """The rule lists them; a new one would go unnoticed."""
    [rule] = [one for one in RULES if one["alert"] == "SluicePredictionsNotLogged"]
    [listed] = re.findall(r'outcome=~"([^"]*)"', rule["expr"])
    [lost] = re.findall(r"dropped \(([^)]*)\)", FAMILIES["sluice_log_rows_total"].help)

    assert set(listed.split("|")) == set(lost.split(", "))
