"""What comes out of a training enters a configuration: checked, copied, and a shadow.

Nothing here makes a version answer anybody. That takes a person's edit, and `sluice apply` refuses
it until the version has been a shadow in a published revision.
"""

import re
from pathlib import Path
from typing import Final

import msgspec

from serving.config.check import check, check_signatures
from serving.config.facts import gather
from serving.config.load import Loaded, load_directory, resolve_artifacts
from serving.config.problems import raise_errors
from serving.config.schema import ModelConfig
from serving.config.shadow_edit import CannotEdit, add_shadow
from serving.errors import InvalidArtifact, InvalidConfig
from serving.files import write_whole
from serving.models import artifact
from serving.models.golden_files import golden_problems
from serving.models.verdict import CheckLimits
from serving.types import Signature

__all__ = ["Brought", "bring"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_LARGEST_GOLDEN: Final = 4 << 20


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that the configuration has now. `file` is relative to the model's YAML."""

    model: str
    version: str
    sha256: str
    file: str
    percent: float
    golden: bool


def bring(
    root: Path,
    model: str,
    file: Path,
    *,
    version: str,
    checked: Path,
    golden: Path | None = None,
    percent: float = 100.0,
) -> Brought:
    """Check a model file, copy it beside the others, and add it to the model's YAML as a shadow.

    Either all of it happens or nothing. Blocks: it opens the file in throw-away processes.

    Args:
        root: the configuration directory.
        model: which one; production's file must be one of this configuration.
        file: ONNX; not a symbolic link.
        version: a name that is not taken.
        checked: where passed checks are remembered.
        golden: its golden examples; None: those of production's version, if it has some.
        percent: of the requests that are copied to it.

    Raises:
        InvalidArtifact: the file must not be served, or a golden example differs.
        InvalidConfig: the configuration is broken, or would be with it.
    """
    loaded, config, beside = _place(root, model, version)
    sha256 = artifact.digest(file)
    artifact.check(file, sha256, checked_dir=checked)
    yaml_file = loaded.root / loaded.model_files[model]
    source = config.versions[config.traffic.production]
    folder = Path(source.path).parent
    entry: dict[str, object] = {"path": str(folder / f"{model}-{version}.onnx"), "sha256": sha256}
    if source.labels:
        entry["labels"] = list(source.labels)
    examples = golden or (yaml_file.parent.absolute() / source.golden if source.golden else None)
    if examples is not None:
        artifact.check_golden(file, sha256, examples)
        named = str(folder / f"{model}-{version}.golden.json") if golden else source.golden
        entry["golden"] = named
    entry["candidate"] = True
    before = yaml_file.read_text()
    try:
        after = add_shadow(before, version, entry, percent)
    except CannotEdit as error:
        raise InvalidConfig(f"{loaded.model_files[model]}: {error}") from error
    made: list[Path] = []
    try:
        _copy(file, beside.with_name(f"{model}-{version}.onnx"), sha256, made)
        if golden is not None:
            copy = beside.with_name(f"{model}-{version}.golden.json")
            _write(copy, golden.read_bytes()[:_LARGEST_GOLDEN], made)
        write_whole(yaml_file, after.encode(), mode=0o644)
        _insist(root, checked)
    except BaseException:
        write_whole(yaml_file, before.encode(), mode=0o644)
        for path in made:
            path.unlink(missing_ok=True)
        raise
    return Brought(
        model=model,
        version=version,
        sha256=sha256,
        file=str(entry["path"]),
        percent=percent,
        golden=examples is not None,
    )


def _place(root: Path, model: str, version: str) -> tuple[Loaded, ModelConfig, Path]:
    """The configuration, the model, and the file beside which the new one goes."""
    loaded = load_directory(root)
    raise_errors(check(loaded, gather(loaded)))
    config = loaded.configuration.models.get(model)
    if config is None:
        known = ", ".join(sorted(loaded.configuration.models))
        raise InvalidConfig(f"there is no model '{model[:128]}'; there is {known or 'none'}")
    if not _NAME.match(version):
        raise InvalidConfig("a version's name is lower-case letters, digits, `.`, `_` and `-`")
    if version in config.versions:
        raise InvalidConfig(f"'{model}' has a version `{version}` already: new bytes, new version")
    beside = resolve_artifacts(loaded).get((model, config.traffic.production))
    if beside is None:
        raise InvalidConfig(f"production of '{model}' is no file, so there is no folder for one")
    return loaded, config, beside


def _copy(source: Path, target: Path, sha256: str, made: list[Path]) -> None:
    _write(target, artifact.read(source, sha256, CheckLimits().max_file_bytes), made)


def _write(target: Path, content: bytes, made: list[Path]) -> None:
    try:
        write_whole(target, content, mode=0o644, exclusive=True)
    except FileExistsError as error:
        raise InvalidConfig(
            f"there is a file {target.name} already; choose another version name"
        ) from error
    except OSError as error:
        raise InvalidConfig(f"{target.name} cannot be written: {error.strerror}") from error
    made.append(target)


def _insist(root: Path, checked: Path) -> None:
    """The configuration with the candidate is one that could be applied."""
    loaded: Loaded = load_directory(root)
    problems = check(loaded, gather(loaded))
    paths = resolve_artifacts(loaded)
    verdicts = artifact.check_many(sorted(set(paths.values())), checked_dir=checked)
    signatures: dict[str, dict[str, Signature]] = {}
    for (model, version), path in paths.items():
        verdict = verdicts[path]
        if isinstance(verdict, InvalidArtifact):
            raise verdict
        signatures.setdefault(model, {})[version] = verdict
    raise_errors([*problems, *check_signatures(loaded, signatures)])
    raise_errors(golden_problems(loaded, paths))
