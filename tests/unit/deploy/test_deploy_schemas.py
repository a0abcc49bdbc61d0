"""Each manifest by itself: the schema of its kind, and what kustomize makes of them all.

`schemas/README.md` says where the schemas come from.
"""

import copy
import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from deploy_kit import FOLDER, MANIFESTS, ROOT, documents, source_of

from serving.config.load import load_gateway

SCHEMAS = Path(__file__).parent / "schemas"
KINDS = {
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "RayService": "ray.io.v1.RayService",
    "Service": "io.k8s.api.core.v1.Service",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}


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


def test_the_readme_names_only_what_exists() -> None:
    """Files, and objects in the commands, are there."""
    text = (FOLDER / "README.md").read_text()
    files = re.findall(r"`([\w/]+\.(?:yaml|py))`", text)
    services = {manifest["metadata"]["name"] for manifest in documents("service.yaml")}
    missing = [file for file in files if not any(ROOT.rglob(file)) and file != "tokens.yaml"]

    assert missing == []
    assert set(re.findall(r"svc/(\S+)", text)) <= services
