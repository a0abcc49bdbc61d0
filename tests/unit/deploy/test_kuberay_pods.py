"""The pods of the manifests: who they run as, what they see, how they live and end."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy_kit import ROOT, documents, instructions, source_of

from serving.config.addresses import listener_parts
from serving.config.load import load_directory, load_gateway

PRE_STOP_STARTS_PYTHON_SECONDS = 2.0


def test_pods_run_as_the_images_user_without_privileges(pods: dict[str, Any]) -> None:
    """Not root, nothing to gain, and nothing to write but the volumes that start empty."""
    users = [
        rest for word, rest in instructions((ROOT / "Dockerfile").read_text()) if word == "USER"
    ]
    for template in (*pods.values(), documents("redis.yaml")[1]["spec"]["template"]):
        spec = template["spec"]
        context = spec["securityContext"]

        assert context["runAsNonRoot"]
        assert users == [f"{context['runAsUser']}:{context['runAsGroup']}"]
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec.get("initContainers", []), *spec["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"requests", "limits"} <= set(container["resources"])


def test_head_and_workers_see_the_same_directories(pods: dict[str, Any], serve: Any) -> None:
    """Paths are published by one and opened by the other; data starts empty on both."""
    views = []
    for template in pods.values():
        spec = template["spec"]
        sources = {volume["name"]: source_of(volume) for volume in spec["volumes"]}
        views += [
            {
                (mount["mountPath"], mount.get("subPath"), sources[mount["name"]])
                for mount in container["volumeMounts"]
                if mount["name"] != "drain"
            }
            for container in (*spec.get("initContainers", []), *spec["containers"])
        ]
    [application] = serve["applications"]

    assert len(views) == 3
    assert views[0] == views[1] == views[2]
    assert {(application["args"]["data"], None, ""), ("/tmp", None, "")} <= views[0]


def test_readiness_is_asked_of_the_workers_own_listener(
    pods: dict[str, Any], configuration: Path
) -> None:
    """Over TLS because that is configured; liveness is Ray's, as a pod may hold no worker yet."""
    container = pods["worker"]["spec"]["containers"][0]
    tls = listener_parts(load_gateway(configuration).listen.http)[1]

    assert container["readinessProbe"]["httpGet"] == {
        "path": "/v2/health/ready",
        "port": "http",
        "scheme": "HTTP" if tls is None else "HTTPS",
    }
    assert container["livenessProbe"]["httpGet"]["path"].startswith("/api/")


def test_a_pod_lives_until_its_workers_have_drained(
    pods: dict[str, Any], serve: Any, configuration: Path
) -> None:
    """Requests in flight < what preStop waits < what Kubernetes waits; Serve's patience fits."""
    drain = float(load_gateway(configuration).limits.drain_timeout)
    spec = pods["worker"]["spec"]
    command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    given = dict(zip(command[3::2], map(float, command[4::2]), strict=True))
    grace = spec["terminationGracePeriodSeconds"]
    [application] = serve["applications"]
    patience = {one["graceful_shutdown_timeout_s"] for one in application["deployments"]}

    assert drain < given["--wait"]
    assert sum(given.values()) + PRE_STOP_STARTS_PYTHON_SECONDS < grace
    assert drain < min(patience)
    assert max(patience) < min(
        template["spec"]["terminationGracePeriodSeconds"] for template in pods.values()
    )


def test_ray_has_room_for_the_workers_and_their_successors(
    service: dict[str, Any], serve: Any
) -> None:
    """Replacements start before the old ones end (`max_surge_percent`); the head takes none."""
    cluster = service["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    gateway = serve["applications"][0]["deployments"][1]
    each = gateway["ray_actor_options"]["num_cpus"]
    surge = 1 + gateway["max_surge_percent"] / 100

    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert float(group["rayStartParams"]["num-cpus"]) >= gateway["num_replicas"] * each * surge


def test_the_init_container_stages_what_control_publishes(
    pods: dict[str, Any], configuration: Path, tmp_path: Path
) -> None:
    """Run as it is written: every model file lies under its digest afterwards."""
    [init] = pods["worker"]["spec"]["initContainers"]
    program, option, source, root, data = init["command"]
    staged = tmp_path / "data"
    staged.mkdir()

    subprocess.run(
        [sys.executable, option, source, str(configuration), str(staged)], cwd=ROOT, check=True
    )

    models = load_directory(configuration).configuration.models.values()
    wanted = {version.sha256 for model in models for version in model.versions.values()}
    files = {path.stem: path.read_bytes() for path in (staged / "artifacts").glob("*.onnx")}
    assert (program, root, data) == ("python", "/etc/sluice", "/var/lib/sluice")
    assert set(files) == wanted
    assert all(hashlib.sha256(body).hexdigest() == name for name, body in files.items())
