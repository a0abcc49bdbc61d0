"""The manifests of `configs/deploy/kuberay`, each as whoever reads it sees it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from deploy_kit import FOLDER, ROOT, documents, instructions, source_of

from serving.config.identity import hash_token


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
