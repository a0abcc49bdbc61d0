"""A configuration directory with a good gateway.yaml, for tests of what a worker takes from it."""

import hashlib
from pathlib import Path

import yaml

from serving.errors import Unauthenticated
from serving.worker.settings import Credentials

GOOD = {"schema_version": 1, "server_name": "good", "limits": {"default_deadline": "250ms"}}


def good_directory(folder: Path) -> Path:
    """Make a configuration directory that says what `GOOD` does."""
    folder.mkdir()
    (folder / "gateway.yaml").write_text(yaml.safe_dump(GOOD))
    return folder


def write_tokens(file: Path, *names: str) -> None:
    """The token of NAME is `secret-NAME`."""
    entries = [
        {
            "name": name,
            "sha256": hashlib.sha256(f"secret-{name}".encode()).hexdigest(),
            "roles": ["infer"],
        }
        for name in names
    ]
    file.write_text(yaml.safe_dump({"tokens": entries}))


def known(credentials: Credentials, name: str) -> bool:
    """Whether NAME's token is accepted, under its name."""
    try:
        return credentials.identify(f"Bearer secret-{name}").name == name
    except Unauthenticated:
        return False
