"""The other servers: what each needs, where that is installed, and the script that serves with it.

Every peer has an environment of its own, because their pins conflict with ours and each other's;
`python -m loadtests.peers install NAME` makes it. Its script takes `--model FILE --http PORT
--grpc PORT`, listens on loopback, serves the file as the model `bench` with one thread, and answers
`POST /v2/models/bench/infer` as the Open Inference Protocol says.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["ENVIRONMENTS", "PEERS", "Peer", "installed", "python", "version_of"]

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = HERE.parents[1] / ".venv-peers"
MARK: Final = ".installed"
"""In an environment: its installation has come to its end."""


class Peer(NamedTuple):
    """A server that is not ours. `package` is the one whose version is told."""

    name: str
    title: str
    package: str
    protocols: tuple[str, ...] = ("http",)
    environment: Mapping[str, str] = MappingProxyType({})

    @property
    def script(self) -> Path:
        """What serves with it."""
        return HERE / f"serve_{self.name}.py"

    @property
    def requirements(self) -> Path:
        """What is installed for it."""
        return HERE / f"{self.name}.in"

    @property
    def folder(self) -> Path:
        """Its environment."""
        return ENVIRONMENTS / self.name


PEERS: Final = (
    Peer("mlserver", "MLServer", "mlserver", ("http", "grpc")),
    Peer("kserve", "KServe", "kserve", ("http", "grpc")),
    Peer(
        "bentoml",
        "BentoML",
        "bentoml",
        environment=MappingProxyType({"BENTOML_DO_NOT_TRACK": "True"}),
    ),
    Peer("litserve", "LitServe", "litserve"),
)


def python(peer: Peer) -> Path:
    """The interpreter that runs it."""
    return peer.folder / "bin" / "python"


def installed(peer: Peer) -> str:
    """Empty if it is; else that it is not, and the command that installs it."""
    if (peer.folder / MARK).exists():
        return ""
    return f"not installed; `python -m loadtests.peers install {peer.name}` does that"


def version_of(peer: Peer) -> str:
    """Its package and version, as `mlserver 1.7.1`."""
    ask = f"from importlib.metadata import version; print(version({peer.package!r}))"
    done = subprocess.run(
        [python(peer), "-c", ask], check=True, capture_output=True, text=True, timeout=60
    )
    return f"{peer.package} {done.stdout.strip()}"
