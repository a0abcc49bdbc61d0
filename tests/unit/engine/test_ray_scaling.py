"""What Serve is told of the number of workers, and what its policy makes of the reports."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from serving.config.schema import WorkersConfig
from serving.config.units import Seconds
from serving.engine.ray_serve.policy import GatewayPolicy
from serving.engine.ray_serve.scaling import as_range, scaling

AT_START = WorkersConfig(min=1, max=2)


def context(
    metrics: dict[str, dict[str, float]], *, current: int = 1, least: int = 1, most: int = 4
) -> Any:
    """The fields of Serve's `AutoscalingContext` that the policy reads."""
    return SimpleNamespace(
        aggregated_metrics=metrics,
        target_num_replicas=current,
        capacity_adjusted_min_replicas=least,
        capacity_adjusted_max_replicas=most,
        current_time=100.0,
        policy_state={},
    )


def policy() -> GatewayPolicy:
    """As Serve builds it in its controller."""
    built = scaling(AT_START, AT_START)["autoscaling_config"]["policy"]["policy_kwargs"]
    return GatewayPolicy(**built)


@pytest.mark.parametrize(
    "workers", [as_range(3), WorkersConfig(min=2, max=8, target_busy=0.3), AT_START]
)
def test_nothing_that_serve_takes_for_code_ever_changes(workers: WorkersConfig) -> None:
    """Only the bounds do; with another policy Serve would replace every replica."""
    before, after = scaling(AT_START, AT_START), scaling(workers, AT_START)
    config = after["autoscaling_config"]

    assert config["policy"] == before["autoscaling_config"]["policy"]
    assert (config["min_replicas"], config["max_replicas"]) == (workers.min, workers.max)
    assert "initial_replicas" not in config


def test_a_number_is_a_range_of_one() -> None:
    """So that it can become a wider one without another kind of configuration."""
    assert as_range(3) == WorkersConfig(min=3, max=3)


def test_the_bounds_are_those_that_serve_has_now() -> None:
    """Not those that the policy was built with."""
    busy = {"busy": {"a": 0.9, "b": 0.9}}

    assert policy()(context(busy, current=2, least=3))[0] == 3
    assert policy()(context(busy, current=9, most=4))[0] == 4


def test_settings_that_come_with_the_reports_win() -> None:
    """Half a core is little by the target at the start, and much by the one applied since."""
    report = {"busy": {"a": 0.5}, "in_flight": {"a": 0.0}}
    told = {**report, "target_busy": {"a": 0.2}, "upscale_delay": {"a": 0.0}}

    assert policy()(context(report))[0] == 1
    assert policy()(context(told))[0] == 3


def test_what_is_told_are_plain_numbers() -> None:
    """Serve's configuration travels as JSON."""
    at_start = WorkersConfig(min=1, max=2, upscale_delay=Seconds(3))

    assert msgspec.json.encode(scaling(at_start, at_start))
