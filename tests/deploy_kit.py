"""What `configs/deploy` and the Dockerfile say, read as they lie there."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "deploy" / "kuberay"
MANIFESTS = ("rayservice.yaml", "service.yaml", "redis.yaml")


def documents(file: str) -> list[dict[str, Any]]:
    """The objects of one file."""
    return [found for found in yaml.safe_load_all((FOLDER / file).read_text()) if found]


def source_of(volume: dict[str, Any]) -> str:
    """The name of the Secret or ConfigMap behind a volume; empty for one that starts empty."""
    secret, config_map = volume.get("secret", {}), volume.get("configMap", {})
    return str(secret.get("secretName") or config_map.get("name") or "")


class Instruction(NamedTuple):
    """One instruction of a Dockerfile, its continuation lines joined."""

    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """Split a Dockerfile into instructions, without comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [Instruction(word, rest.strip()) for word, _, rest in pairs]
