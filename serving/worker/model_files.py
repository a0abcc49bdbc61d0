"""Where a worker finds the model files that control has staged, also on another node.

Control publishes paths in its own data directory. A worker whose node does not have that file looks
in its own data directory and then among the model files of its configuration directory, by
digest: an image or a mounted folder that holds the configuration holds them too.
"""

from pathlib import Path

from msgspec.structs import replace

from serving.config.load import load_directory, resolve_artifacts
from serving.config.snapshot import StagedVersion
from serving.errors import InvalidArtifact, InvalidConfig
from serving.models import artifact

__all__ = ["at_hand"]


def at_hand(staged: StagedVersion, data: Path, configuration: Path) -> StagedVersion:
    """The same version with a path on this node. Blocks on the disk.

    Args:
        staged: as control published it.
        data: this node's data directory.
        configuration: this node's configuration directory.

    Raises:
        InvalidArtifact: no file here has this digest.
    """
    if Path(staged.path).exists():
        return staged
    own = data / "artifacts" / Path(staged.path).name
    if not own.exists():
        own = _from_configuration(staged, data, configuration)
    return replace(staged, path=str(own))


def _from_configuration(staged: StagedVersion, data: Path, configuration: Path) -> Path:
    try:
        loaded = load_directory(configuration)
    except InvalidConfig as error:
        raise _missing(staged) from error
    for (model, version), source in resolve_artifacts(loaded).items():
        said = loaded.configuration.models[model].versions[version].sha256
        if said == staged.sha256 and source.exists():
            return artifact.stage(source, staged.sha256, data / "artifacts")
    raise _missing(staged)


def _missing(staged: StagedVersion) -> InvalidArtifact:
    return InvalidArtifact(
        f"this node has no model file with the digest {staged.sha256[:12]}…; put it where the "
        "configuration directory names it on every node (in the image, or a shared volume)"
    )
