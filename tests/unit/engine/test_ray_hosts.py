"""Dedicated versions as Serve is told them, and whose wishes count for which hosts."""

from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from serving.config.hosts import HostSpec
from serving.config.schema import HostsConfig, ServeConfig
from serving.config.snapshot import StagedVersion
from serving.engine.ray_serve import demand
from serving.engine.ray_serve.host_applications import host_app, host_application
from serving.engine.ray_serve.keeper import Site, in_session, is_of
from serving.engine.ray_serve.policy import HostPolicy
from serving.types import Signature

SITE = Site(configuration="/c", data="/d", http="h", grpc="g", admin="a", incarnation="start")
SPEC = HostSpec(
    id="0123456789",
    model="m",
    version="v1",
    staged=StagedVersion(path="/a", sha256="a" * 64, signature=Signature((), (), True)),
    serve=ServeConfig(placement="dedicated", host_cpus=0.5, hosts=HostsConfig(min=1, max=4)),
)


def host(node: str) -> dict[str, Any]:
    """The one deployment of a version's application."""
    [deployment] = host_application(SITE, SPEC, {}, node)["deployments"]
    return dict(deployment)


def wanted(node: str, metrics: dict[str, dict[str, float]]) -> int:
    """How many hosts there are to be after these reports of the workers."""
    demand.tell(metrics, 100.0)
    settings = host(node)["autoscaling_config"]["policy"]["policy_kwargs"]
    context = SimpleNamespace(
        aggregated_metrics={"busy": {"r": 0.1}},
        target_num_replicas=1,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
        current_time=100.0,
        policy_state={},
    )
    return HostPolicy(**{**settings, "upscale_delay": 0.0})(context)[0]


def test_hosts_of_a_node_are_put_on_it() -> None:
    """Workers reach them over a socket there. Each node's application has a name of its own."""
    assert host("10.0.0.7")["ray_actor_options"] == {
        "num_cpus": 0.5,
        "resources": {"node:10.0.0.7": 0.001},
    }
    assert len({host_app(SPEC), host_app(SPEC, "10.0.0.7"), host_app(SPEC, "10.0.0.8")}) == 3


def test_on_a_ray_of_one_node_nothing_is_pinned() -> None:
    """There is no other place."""
    assert host("")["ray_actor_options"] == {"num_cpus": 0.5}


def test_only_the_workers_of_a_node_want_its_hosts() -> None:
    """A crowd elsewhere asks for hosts there."""
    metrics = {
        demand.name_of(SPEC.id, "10.0.0.7"): {"w1": 200.0, "w2": 200.0},
        demand.name_of(SPEC.id, "10.0.0.8"): {"w3": 0.0},
    }

    assert wanted("10.0.0.7", metrics) == 4
    assert wanted("10.0.0.8", metrics) == 1
    assert wanted("", metrics) == 4


def test_demand_that_nobody_repeats_is_none() -> None:
    """The workers that had it may be gone."""
    demand.tell({demand.name_of("old", "n"): {"w": 9.0}}, 100.0)

    assert demand.of("old", 105.0) == 9.0
    assert demand.of("old", 120.0) == 0.0


def test_a_start_is_another_on_another_ray() -> None:
    """Orders for the gateway on the cluster before this one are not followed on it."""
    one, other = in_session(SITE, "session_1"), in_session(SITE, "session_2")

    assert one != other
    assert replace(one, incarnation="start") == SITE
    assert is_of(one.incarnation, "start")
    assert not is_of(one.incarnation, "star")
