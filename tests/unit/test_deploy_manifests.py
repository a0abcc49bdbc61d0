"""There is no cluster in these tests: the manifests are read, and held to what they say together.

`schemas/README.md` says where the schemas come from.
"""

import copy
import functools
import hashlib
import importlib.util
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import trustme
import yaml
from test_dockerfile import instructions

from serving.cli.up import _options
from serving.config.addresses import listener_parts, parse_address
from serving.config.check import check
from serving.config.facts import gather
from serving.config.identity import hash_token
from serving.config.load import load_directory, load_gateway
from serving.engine.ray_serve.gateway_application import (
    gateway_application,
    patience_of,
    site_of,
)
from serving.engine.ray_serve.keeper import Site
from serving.engine.ray_serve.scaling import as_range
from serving.engine.report import Addresses

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "deploy" / "kuberay"
MANIFESTS = ("rayservice.yaml", "service.yaml", "redis.yaml")
SCHEMAS = Path(__file__).parent / "schemas"
KINDS = {
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "RayService": "ray.io.v1.RayService",
    "Service": "io.k8s.api.core.v1.Service",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}
PRE_STOP_STARTS_PYTHON_SECONDS = 2.0


def documents(file: str) -> list[dict[str, Any]]:
    """The objects of one file."""
    return [found for found in yaml.safe_load_all((FOLDER / file).read_text()) if found]


@functools.cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    """The schema of a kind."""
    definitions: dict[str, Any] = {}
    for name in ("kubernetes.json", "rayservice.json"):
        definitions |= json.loads((SCHEMAS / name).read_text())["$defs"]
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{KINDS[kind]}", "$defs": definitions})


def problems(manifest: dict[str, Any]) -> list[str]:
    """What the schema of its kind has against a manifest, with the place of each mistake."""
    errors = validator(manifest["kind"]).iter_errors(manifest)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors]


@pytest.fixture
def service() -> dict[str, Any]:
    """The RayService."""
    [found] = documents("rayservice.yaml")
    return found


@pytest.fixture
def serve(service: dict[str, Any]) -> Any:
    """What KubeRay hands to Serve."""
    return yaml.safe_load(service["spec"]["serveConfigV2"])


@pytest.fixture
def pods(service: dict[str, Any]) -> dict[str, Any]:
    """The pod templates, with the labels that KubeRay gives them (`labelPod` in its pod.go)."""
    cluster = service["spec"]["rayClusterConfig"]
    [group] = cluster["workerGroupSpecs"]
    found = {"head": cluster["headGroupSpec"]["template"], "worker": group["template"]}
    for kind, template in found.items():
        template["metadata"]["labels"] |= {
            "ray.io/node-type": kind,
            "ray.io/group": group["groupName"] if kind == "worker" else "headgroup",
            "app.kubernetes.io/name": "kuberay",
            "app.kubernetes.io/created-by": "kuberay-operator",
        }
    return found


@pytest.fixture
def generated() -> dict[str, dict[str, Path]]:
    """Secrets and ConfigMaps that kustomize makes: name to key to file."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    return {
        one["name"]: {Path(file).name: FOLDER / file for file in one["files"]}
        for one in [*kustomization["secretGenerator"], *kustomization["configMapGenerator"]]
    }


@pytest.fixture
def configuration(pods: dict[str, Any], generated: dict[str, Any], tmp_path: Path) -> Path:
    """The directory /etc/sluice as the head pod sees it: the image's, with the mounts over it.

    Certificate and tokens are made up; whoever applies the manifests brings their own.
    """
    root = tmp_path / "etc" / "sluice"
    image: dict[str, list[str]] = {"/etc/sluice/": []}
    for word, rest in instructions((ROOT / "Dockerfile").read_text()):
        source, _, target = rest.partition(" ")
        if word == "COPY" and target.startswith("/etc/sluice/"):
            image[target] = [*image.get(target, []), source]
    for target, sources in image.items():
        for source in sources:
            place = root / target.removeprefix("/etc/sluice/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)
    certificate = trustme.CA().issue_cert("localhost")
    made = {
        "sluice-tls": {
            "tls.crt": certificate.cert_chain_pems[0].bytes(),
            "tls.key": certificate.private_key_pem.bytes(),
        },
        "sluice-tokens": {
            "tokens.yaml": yaml.safe_dump(
                {"tokens": [{"name": "ana", "sha256": hash_token("t"), "roles": ["infer"]}]}
            ).encode()
        },
        **{
            name: {key: file.read_bytes() for key, file in files.items()}
            for name, files in generated.items()
        },
    }
    spec = pods["head"]["spec"]
    volumes = {volume["name"]: source_of(volume) for volume in spec["volumes"]}
    for mount in spec["containers"][0]["volumeMounts"]:
        if not mount["mountPath"].startswith("/etc/sluice"):
            continue
        place = root / mount["mountPath"].removeprefix("/etc/sluice").lstrip("/")
        content = made[volumes[mount["name"]]]
        if "subPath" in mount:
            place.write_bytes(content[mount["subPath"]])
            continue
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for key, body in content.items():
            (place / key).write_bytes(body)
            (place / key).chmod(0o440)
    return root


def source_of(volume: dict[str, Any]) -> str:
    """The name of the Secret or ConfigMap behind a volume; empty for one that starts empty."""
    secret, config_map = volume.get("secret", {}), volume.get("configMap", {})
    return str(secret.get("secretName") or config_map.get("name") or "")


# --- schemas --------------------------------------------------------------------------------


def test_the_schemas_are_sound() -> None:
    """They are schemas themselves, and every reference in them leads somewhere."""
    schema: Any = validator("RayService").schema
    text = json.dumps(schema)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(re.findall(r'"#/\$defs/([^"]+)"', text)) <= set(schema["$defs"])
    assert sum(path.stat().st_size for path in SCHEMAS.iterdir()) < 200_000


@pytest.mark.parametrize("file", MANIFESTS)
def test_manifests_fit_the_schemas_of_their_kinds(file: str) -> None:
    """No unknown key, no missing one, no value of another type."""
    found = documents(file)

    assert found
    assert [problem for manifest in found for problem in problems(manifest)] == []


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("rayservice.yaml", ["spec"]),
        ("rayservice.yaml", ["spec", "rayClusterConfig"]),
        ("rayservice.yaml", ["spec", "rayClusterConfig", "authOptions"]),
        ("rayservice.yaml", ["spec", "rayClusterConfig", "gcsFaultToleranceOptions"]),
        ("rayservice.yaml", ["spec", "rayClusterConfig", "headGroupSpec"]),
        ("rayservice.yaml", ["spec", "rayClusterConfig", "headGroupSpec", "template", "metadata"]),
        ("rayservice.yaml", ["spec", "rayClusterConfig", "headGroupSpec", "template", "spec"]),
        ("rayservice.yaml", ["spec", "rayClusterConfig", "workerGroupSpecs", 0]),
        (
            "rayservice.yaml",
            [
                *("spec", "rayClusterConfig", "workerGroupSpecs", 0, "template", "spec"),
                *("containers", 0, "readinessProbe", "httpGet"),
            ],
        ),
        ("service.yaml", ["spec"]),
        ("service.yaml", ["spec", "ports", 0]),
        ("redis.yaml", ["spec"]),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else value,
)
def test_a_misspelled_key_is_found(file: str, path: list[str | int]) -> None:
    """The last letter of a key lost, anywhere on the way to a probe: the schema says which."""
    manifest = copy.deepcopy(documents(file)[0])
    place: Any = manifest
    for step in path:
        place = place[step]
    key = next(iter(place))
    place[key[:-1]] = place.pop(key)

    assert any(f"'{key[:-1]}' was unexpected" in problem for problem in problems(manifest))


def test_a_value_of_another_type_is_found(service: dict[str, Any]) -> None:
    """`num-cpus: 0` instead of `"0"` is what people write first; `ray start` takes words."""
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0

    assert any("num-cpus: 0 is not of type 'string'" in problem for problem in problems(service))


# --- kustomize ------------------------------------------------------------------------------


def test_the_kustomization_names_every_file() -> None:
    """What is in the folder is applied, made into a Secret or ConfigMap, or read by people."""
    text = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    generators = [*text["secretGenerator"], *text["configMapGenerator"]]
    named = {
        *text["resources"],
        *text["configurations"],
        *(file for generator in generators for file in generator["files"]),
    }
    there = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}

    assert set(text["resources"]) == set(MANIFESTS)
    assert there == {*named, "kustomization.yaml", "README.md"}


def test_every_secret_and_config_map_is_made_or_described(
    pods: dict[str, Any], generated: dict[str, Any]
) -> None:
    """A generator makes it, or the README has the command; none is in the repository."""
    readme = (FOLDER / "README.md").read_text()
    by_hand = set(re.findall(r"kubectl create secret \S+ (\S+)", readme))
    text = "".join((FOLDER / file).read_text() for file in MANIFESTS)
    keys = set(re.findall(r"secretKeyRef: \{name: (\S+), key: password\}", text))
    volumes = {
        source_of(volume) for template in pods.values() for volume in template["spec"]["volumes"]
    }

    assert (volumes - {""}) | keys == {*generated, *by_hand}
    assert "kind: Secret" not in text
    assert load_gateway(FOLDER).store.startswith("redis://:CHANGE-ME@")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_puts_the_digest_wherever_a_name_is_used() -> None:
    """An edit of gateway.yaml changes the pod templates, and with them the pods."""
    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True, check=True
    )
    objects = list(yaml.safe_load_all(built.stdout))
    made = {one["metadata"]["name"] for one in objects if one["kind"] in {"ConfigMap", "Secret"}}
    [service] = [one for one in objects if one["kind"] == "RayService"]
    cluster = service["spec"]["rayClusterConfig"]
    templates = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    used = {source_of(volume) for one in templates for volume in one["template"]["spec"]["volumes"]}
    images = re.findall(r"image: (sluice\S*)", built.stdout)

    assert made == used - {"", "sluice-tls", "sluice-tokens"}
    assert any(re.fullmatch(r"sluice-gateway-\w+", name) for name in made)
    assert [problem for one in objects if one["kind"] in KINDS for problem in problems(one)] == []
    assert set(images) == {"sluice:0.1.0"}


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


# --- pods -----------------------------------------------------------------------------------


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


# --- what runs in the pods ------------------------------------------------------------------


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


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """DATA/run, empty."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


WORKER = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
print(connection.recv(4096).split(b"\\r\\n")[0].decode(), flush=True)
connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
time.sleep(float(sys.argv[2]))
"""


def start_worker(path: Path, seconds: float) -> "subprocess.Popen[str]":
    """A process that takes one question on a private socket, and then works for so long."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", WORKER, str(path), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    # As an engine does: a process that ended and was not waited for would still be there.
    threading.Thread(target=process.wait, daemon=True).start()
    return process


@pytest.fixture
def workers(run_folder: Path) -> Iterator[list["subprocess.Popen[str]"]]:
    """Two such processes: one is done at once, one after half a second."""
    started = [
        start_worker(run_folder / f"worker-{number}.sock", seconds)
        for number, seconds in enumerate((0.0, 0.5))
    ]
    yield started
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def drain(data: Path, *, wait: float) -> "subprocess.CompletedProcess[str]":
    """Run preStop's program without its pause."""
    return subprocess.run(
        [
            *(sys.executable, "-I", "-S", str(FOLDER / "drain.py"), str(data)),
            *("--pause", "0", "--wait", str(wait)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_pre_stop_returns_when_the_last_worker_has_ended(
    run_folder: Path, workers: list["subprocess.Popen[str]"]
) -> None:
    """Every worker is asked, and the slowest is waited for; a socket without one is passed over."""
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(str(run_folder / "worker-7.sock"))
    abandoned.close()

    done = drain(run_folder.parent, wait=20)

    assert (done.returncode, done.stderr) == (0, "")
    for process in workers:
        assert process.stdout is not None
        assert process.stdout.readline() == "POST /drain HTTP/1.1\n"
        assert process.poll() == 0


def test_pre_stop_gives_up_in_time(
    run_folder: Path, workers: list["subprocess.Popen[str]"]
) -> None:
    """A worker that goes on is left to SIGKILL, and the event that Kubernetes keeps says so."""
    del workers
    slow = start_worker(run_folder / "worker-2.sock", 60)
    began = time.monotonic()

    done = drain(run_folder.parent, wait=1)

    assert time.monotonic() - began < 20
    assert done.returncode == 1
    assert "1 workers did not finish within 1 s" in done.stderr
    slow.kill()
    slow.wait()
    assert slow.stdout is not None
    slow.stdout.close()


def test_pre_stop_has_nothing_to_do_without_workers(run_folder: Path) -> None:
    """A pod in which none was placed ends at once."""
    assert drain(run_folder.parent, wait=20).returncode == 0


# --- words ----------------------------------------------------------------------------------


def test_the_readme_names_only_what_exists() -> None:
    """Files, and objects in the commands, are there."""
    text = (FOLDER / "README.md").read_text()
    files = re.findall(r"`([\w/]+\.(?:yaml|py))`", text)
    services = {manifest["metadata"]["name"] for manifest in documents("service.yaml")}
    missing = [file for file in files if not any(ROOT.rglob(file)) and file != "tokens.yaml"]

    assert missing == []
    assert set(re.findall(r"svc/(\S+)", text)) <= services
