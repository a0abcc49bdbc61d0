"""Model hosts: which versions have processes of their own, and what those processes are called.

Control writes `DATA/hosts.json`; the engine keeps as many processes of each as its load asks
for; each process finds its part there by its id; workers find the processes by their sockets'
names. None of them imports another.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from serving.config.schema import HostsConfig, ModelConfig, ServeConfig
from serving.config.snapshot import RolloutTraffic, Snapshot, StagedVersion
from serving.config.snapshot_codec import dec_hook, enc_hook
from serving.errors import InvalidConfig
from serving.files import write_whole

__all__ = [
    "HOSTS_FILE",
    "HostSpec",
    "data_socket",
    "data_sockets",
    "has_traffic",
    "host_id",
    "host_name",
    "is_dedicated",
    "merged",
    "private_socket",
    "read_hosts",
    "scaling_of",
    "wanted_hosts",
    "write_hosts",
]

HOSTS_FILE: Final = "hosts.json"
_ID_DIGITS: Final = 10


class HostSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One version that has processes of its own.

    `idle`: no traffic plan names the version, so no process needs to run until somebody asks
    for it by name. `warm`: a rollout may send it everybody within a second, so one always runs.
    """

    id: str
    model: str
    version: str
    staged: StagedVersion
    serve: ServeConfig
    idle: bool = False
    warm: bool = False

    @property
    def name(self) -> str:
        """For people: `model/version`."""
        return f"{self.model}/{self.version}"


def is_dedicated(config: ModelConfig, version: str) -> bool:
    """Whether this version has processes of its own; one with a `url` is somebody else's."""
    return config.serve.placement == "dedicated" and not config.versions[version].urls


def has_traffic(config: ModelConfig, version: str) -> bool:
    """Whether the traffic plan of `config` names the version."""
    traffic = config.traffic
    return (
        version == traffic.production
        or (traffic.canary is not None and traffic.canary.version == version)
        or any(shadow.version == version for shadow in traffic.shadow)
    )


def _is_wanted(config: ModelConfig, version: str, rollout: RolloutTraffic | None) -> bool:
    """Whether processes of the version should run though nobody asks for it by name.

    What the file names counts beside what a rollout makes of it: were the rollout to go, the
    file's production must be there.
    """
    if has_traffic(config, version):
        return True
    return _is_rolled(version, rollout)


def _is_rolled(version: str, rollout: RolloutTraffic | None) -> bool:
    """Whether a rollout names it: while it lasts, and what was stopped as long as it is kept."""
    return rollout is not None and version in {rollout.production, rollout.canary}


def host_id(model: str, version: str, staged: StagedVersion, serve: ServeConfig) -> str:
    """Name the processes of a version: other bytes or other options, other processes.

    Short, because it becomes part of a socket's name. What only says how many of them there are
    is left out: changing it replaces none.
    """
    ruling = msgspec.structs.replace(
        serve, hosts=1, host_cpus=1.0, cold_start_timeout=0.0, deadline=None
    )
    text = msgspec.json.encode([model, version, staged.sha256, ruling], enc_hook=enc_hook)
    return hashlib.sha256(text).hexdigest()[:_ID_DIGITS]


def wanted_hosts(snapshot: Snapshot) -> list[HostSpec]:
    """Every version of a snapshot that has processes of its own, by model and version."""
    return [
        HostSpec(
            id=host_id(name, version, staged, config.serve),
            model=name,
            version=version,
            staged=staged,
            serve=config.serve,
            idle=not _is_wanted(config, version, snapshot.rollouts.get(name)),
            warm=_is_rolled(version, snapshot.rollouts.get(name)),
        )
        for name, config in sorted(snapshot.models.items())
        if name not in snapshot.unloaded
        for version, staged in sorted(snapshot.staged.get(name, {}).items())
        if is_dedicated(config, version)
    ]


def merged(older: Iterable[HostSpec], newer: Iterable[HostSpec]) -> list[HostSpec]:
    """What both need, while workers go from one to the other; the newer word counts."""
    found = {spec.id: spec for spec in older} | {spec.id: spec for spec in newer}
    return sorted(found.values(), key=lambda spec: (spec.model, spec.version, spec.id))


def scaling_of(spec: HostSpec) -> HostsConfig:
    """How many processes, as bounds.

    None needs to run for a version without traffic, and at least one for one that is rolled out.
    """
    hosts = spec.serve.hosts
    bounds = HostsConfig(min=hosts, max=max(1, hosts)) if isinstance(hosts, int) else hosts
    if spec.idle:
        return msgspec.structs.replace(bounds, min=0)
    return msgspec.structs.replace(bounds, min=max(1, bounds.min)) if spec.warm else bounds


def host_name(id_: str, number: int) -> str:
    """What a process is called among processes."""
    return f"host-{id_}-{number}"


def data_socket(run: Path, id_: str, number: int) -> Path:
    """Where a host answers inference; it is there only while it takes requests."""
    return run / f"h-{id_}-{number}.sock"


def data_sockets(run: Path, id_: str) -> list[Path]:
    """Every such socket of these hosts, of dead ones too."""
    return list(run.glob(f"h-{id_}-*.sock"))


def private_socket(run: Path, id_: str, number: int) -> Path:
    """Where its supervisor asks for health and load."""
    return run / f"p-{id_}-{number}.sock"


def write_hosts(data: Path, hosts: list[HostSpec]) -> None:
    """Replace `DATA/hosts.json` as a whole. Raises OSError."""
    write_whole(data / HOSTS_FILE, msgspec.json.encode(hosts, enc_hook=enc_hook))


def read_hosts(data: Path) -> list[HostSpec]:
    """What control has written; empty before it has.

    Raises:
        InvalidConfig: the file cannot be read, or is of another release.
    """
    try:
        text = (data / HOSTS_FILE).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidConfig(f"{HOSTS_FILE} cannot be read: {error.strerror}") from error
    try:
        return msgspec.json.decode(text, type=list[HostSpec], dec_hook=dec_hook)
    except msgspec.DecodeError as error:
        raise InvalidConfig(f"{HOSTS_FILE} is unfit: {error}") from error
