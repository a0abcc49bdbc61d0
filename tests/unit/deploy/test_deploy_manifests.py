"""There is no cluster in these tests: the manifests are held to what they say together."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from deploy_kit import ROOT, documents

from serving.cli.up import _options
from serving.config.addresses import listener_parts, parse_address
from serving.config.check import check
from serving.config.facts import gather
from serving.config.load import load_directory, load_gateway
from serving.engine.ray_serve.gateway_application import (
    gateway_application,
    patience_of,
    site_of,
)
from serving.engine.ray_serve.keeper import Site
from serving.engine.ray_serve.scaling import as_range
from serving.engine.report import Addresses

# --- what Serve is told ---------------------------------------------------------------------


def test_serve_is_told_what_the_engine_would_tell_it(serve: Any, configuration: Path) -> None:
    """`sluice up --engine ray` on this configuration deploys the same, number for number.

    Except that it writes a fixed number as a range, so that it can be changed in place; here that
    is done by editing the manifest.
    """
    gateway = load_gateway(configuration)
    options = _options(
        Path("/etc/sluice"),
        gateway,
        gateway.engine,
        data=Path("/var/lib/sluice"),
        insecure=False,
    )
    addresses = Addresses(http=options.http, grpc=options.grpc, admin=options.admin)
    expected = gateway_application(
        site_of(options, addresses, "any"),
        gateway.engine,
        as_range(gateway.engine.workers),
        patience_of(options),
    )
    [application] = serve["applications"]
    incarnation = application["args"].pop("incarnation")
    expected["args"].pop("incarnation")
    [_, workers] = expected["deployments"]
    scaling = workers.pop("autoscaling_config")
    workers["num_replicas"] = scaling["min_replicas"]

    assert application == expected
    assert scaling["min_replicas"] == scaling["max_replicas"]
    assert isinstance(incarnation, str)
    assert serve["proxy_location"] == "Disabled"


def test_the_arguments_are_a_site(serve: Any) -> None:
    """They convert strictly, and none is unknown."""
    [application] = serve["applications"]
    arguments = application["args"]

    assert msgspec.convert(arguments, Site).configuration == "/etc/sluice"
    assert set(arguments) == set(Site.__struct_fields__)


def test_serves_own_schema_takes_it(serve: Any) -> None:
    """Ray's class for such files takes it, and refuses a spoiled one.

    In a process of its own: importing Ray warns, and warnings are errors here. The class passes
    over unknown keys of a deployment; those the comparison with the engine finds.
    """
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    program = (
        "import json, sys\n"
        "from ray.serve.schema import ServeDeploySchema\n"
        "config = json.load(sys.stdin)\n"
        "schema = ServeDeploySchema.model_validate(config)\n"
        "print(*(one.name for one in schema.applications[0].deployments))\n"
        "config['applications'][0]['deployments'][0]['num_replicas'] = 'many'\n"
        "ServeDeploySchema.model_validate(config)\n"
    )

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        input=json.dumps(serve),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == "Control Gateway\n", done.stderr
    assert done.returncode != 0
    assert "ValidationError" in done.stderr
    assert "num_replicas" in done.stderr


def test_the_version_of_ray_is_the_pinned_one(service: dict[str, Any]) -> None:
    """KubeRay decides by it what it may ask of Ray; the image has what constraints.txt says."""
    pinned = re.search(
        r"^ray\[serve\]==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )

    assert pinned is not None
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == pinned.group(1)


# --- configuration, ports, selectors --------------------------------------------------------


def test_the_mounted_configuration_has_no_mistakes(configuration: Path) -> None:
    """Checked as `sluice check` does; only that a group may read the Secrets is remarked on."""
    loaded = load_directory(configuration)
    found = check(loaded, gather(loaded))

    assert [problem for problem in found if problem.severity == "error"] == []
    assert {problem.path for problem in found} <= {
        *(f"listen.{name}.tls.key" for name in ("http", "grpc", "admin")),
        "auth.tokens",
    }


def test_the_services_lead_to_the_configured_ports(
    pods: dict[str, Any], serve: Any, configuration: Path
) -> None:
    """Service, container, arguments and gateway.yaml name the same ports."""
    listen = load_gateway(configuration).listen
    configured = {
        name: parse_address(listener_parts(getattr(listen, name))[0]).port
        for name in ("http", "grpc", "admin")
    }
    [application] = serve["applications"]
    said = {name: parse_address(application["args"][name]).port for name in configured}
    led = {
        port["targetPort"]: port["port"]
        for manifest in documents("service.yaml")
        for port in manifest["spec"]["ports"]
    }
    opened = {
        port["name"]: port["containerPort"]
        for template in pods.values()
        for port in template["spec"]["containers"][0]["ports"]
    }

    assert said == configured
    assert led == configured
    assert {name: opened[name] for name in configured} == configured


def test_each_service_selects_the_pods_that_listen(pods: dict[str, Any]) -> None:
    """The gateway's leads to worker pods alone, the admin one to the head alone."""
    for manifest, expected in zip(documents("service.yaml"), ("worker", "head"), strict=True):
        selector = manifest["spec"]["selector"]
        selected = [
            kind
            for kind, template in pods.items()
            if selector.items() <= template["metadata"]["labels"].items()
        ]
        ports = {port["name"] for port in pods[expected]["spec"]["containers"][0]["ports"]}

        assert selected == [expected]
        assert {port["targetPort"] for port in manifest["spec"]["ports"]} <= ports


def test_kuberays_own_labels_are_left_alone(service: dict[str, Any]) -> None:
    """Its Service for the head selects by `app.kubernetes.io/name`, which a template can spoil."""
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]

        assert "app.kubernetes.io/name" not in labels
        assert not any(label.startswith("ray.io/") for label in labels)


def test_redis_is_reached_by_the_names_it_has(
    service: dict[str, Any], configuration: Path, pods: dict[str, Any]
) -> None:
    """Ray and Sluice name different servers of the StatefulSet, and the policy lets both in."""
    headless, stateful, policy = documents("redis.yaml")
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    names = {
        f"{stateful['metadata']['name']}-{number}.{headless['metadata']['name']}:6379"
        for number in range(stateful["spec"]["replicas"])
    }
    options = service["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    store = load_gateway(configuration).store.rpartition("@")[2].partition("/")[0]
    [rule] = policy["spec"]["ingress"]
    allowed = rule["from"][0]["podSelector"]["matchLabels"]

    assert {options["redisAddress"], store} == names
    assert stateful["spec"]["serviceName"] == headless["metadata"]["name"]
    assert headless["spec"]["selector"].items() <= labels.items()
    assert stateful["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    for template in pods.values():
        assert allowed.items() <= template["metadata"]["labels"].items()


def test_redis_keeps_what_it_is_told() -> None:
    """An append-only file, no eviction, a password from a Secret and not among the arguments."""
    container = documents("redis.yaml")[1]["spec"]["template"]["spec"]["containers"][0]
    [script] = container["args"]

    assert {"appendonly yes", "maxmemory-policy noeviction", "requirepass $PASSWORD"} <= set(
        script.splitlines()
    )
    assert script.startswith("exec valkey-server - <<EOF\n")
