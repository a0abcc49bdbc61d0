"""Read a configuration directory: every file, every mistake, and the line of every value.

    DIR/gateway.yaml          ports, limits, store, engine
    DIR/models/*.yaml         one model each
    DIR/features/*.yaml       one feature view each
    DIR/tokens.yaml           (or wherever `auth.tokens` points) hashes of credentials

Reading does not judge: `serving.config.check` says whether the parts fit together.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from feature_cache.views import FeatureView
from serving.config.decode import Decoded, decode
from serving.config.problems import Problem, Sources, did_you_mean, raise_errors
from serving.config.schema import Configuration, GatewayConfig, ModelConfig, TokensFile

__all__ = [
    "MAX_FILE_BYTES",
    "Loaded",
    "content_digest",
    "load_directory",
    "load_gateway",
    "load_tokens",
    "resolve_artifacts",
    "resolve_golden",
    "resolve_references",
    "resolve_seeds",
]

MAX_FILE_BYTES: Final = 1 << 20
"""Largest YAML file read. The largest sensible one is a few KiB."""

_GATEWAY: Final = "gateway.yaml"

T = TypeVar("T", bound=msgspec.Struct)


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A directory as it was read.

    `model_files` and `view_files` give each model's and view's file, relative to `root`;
    `sources` the line of every value in it, `digest` what `content_digest` says of these files.
    """

    root: Path
    configuration: Configuration
    sources: Sources
    model_files: dict[str, str]
    view_files: dict[str, str]
    digest: str = ""


def load_directory(path: Path) -> Loaded:
    """Read and decode every file of a configuration directory.

    Raises:
        InvalidConfig: something cannot be read or decoded; `problems` holds everything found
            in all files, in file order.
    """
    reader = _Reader(path)
    gateway = reader.gateway()
    models = dict(reader.folder("models", ModelConfig, "model"))
    views = dict(reader.folder("features", FeatureView, "view"))
    raise_errors(reader.problems)
    assert gateway is not None
    return Loaded(
        root=path,
        configuration=Configuration(
            gateway=gateway,
            models={name: model for name, (_, model) in models.items()},
            views={name: view for name, (_, view) in views.items()},
        ),
        sources=reader.sources,
        model_files={name: file for name, (file, _) in models.items()},
        view_files={name: file for name, (file, _) in views.items()},
        digest=_folded(reader.contents),
    )


def content_digest(root: Path) -> str:
    """SHA-256 of the names and contents of every file that `load_directory` would read.

    Model files are not looked at: the YAML has their digests. A file that cannot be read is part
    of it too, so that this never fails and changes when it can be read again.
    """
    reader = _Reader(root)
    for file in (_GATEWAY, *reader.names("models"), *reader.names("features")):
        reader.text(file)
    return _folded(reader.contents)


def load_gateway(root: Path) -> GatewayConfig:
    """Read only `gateway.yaml` of a directory. Raises InvalidConfig with every mistake found."""
    return _require(_decode_file(root / _GATEWAY, _GATEWAY, GatewayConfig), GatewayConfig)


def load_tokens(path: Path) -> TokensFile:
    """Read a token file. Raises InvalidConfig with every mistake found."""
    return _require(_decode_file(path, path.name, TokensFile), TokensFile)


def resolve_artifacts(loaded: Loaded) -> dict[tuple[str, str], Path]:
    """Where each version's model file is: absolute paths, keyed by (model, version).

    Relative paths in YAML start at the YAML file that says them. Versions at other servers have
    no file and are left out.
    """
    return {
        (name, version): (loaded.root / loaded.model_files[name]).parent.absolute() / source.path
        for name, model in loaded.configuration.models.items()
        for version, source in model.versions.items()
        if source.path and not source.urls
    }


def resolve_golden(loaded: Loaded) -> dict[tuple[str, str], Path]:
    """Where the golden examples of each version that has some are, as `resolve_artifacts`."""
    return {
        (name, version): (loaded.root / loaded.model_files[name]).parent.absolute() / source.golden
        for name, model in loaded.configuration.models.items()
        for version, source in model.versions.items()
        if source.golden and source.path and not source.urls
    }


def resolve_references(loaded: Loaded) -> dict[str, Path]:
    """Where the reference of each model that is compared with one is: absolute paths, by model."""
    return {
        name: (loaded.root / loaded.model_files[name]).parent.absolute()
        / model.monitoring.reference
        for name, model in loaded.configuration.models.items()
        if model.monitoring is not None and model.monitoring.reference
    }


def resolve_seeds(loaded: Loaded) -> dict[str, Path]:
    """Where the seed of each view that has one is: absolute paths, by view."""
    return {
        name: (loaded.root / loaded.view_files[name]).parent.absolute() / view.seed
        for name, view in loaded.configuration.views.items()
        if view.seed is not None
    }


class _Reader:
    """Collects problems and places over all files."""

    def __init__(self, root: Path) -> None:
        self.problems: list[Problem] = []
        self.sources = Sources()
        self.contents: dict[str, str] = {}
        """By file, the digest of what was read; empty if it could not be."""

        self._root = root

    def gateway(self) -> GatewayConfig | None:
        """Decode `gateway.yaml`."""
        return self._file(_GATEWAY, GatewayConfig)

    def folder(
        self, folder: str, kind: type[T], name_field: str
    ) -> Iterator[tuple[str, tuple[str, T]]]:
        """Decode each YAML file of a folder: (name, (file, value)), one per name."""
        seen: dict[str, str] = {}
        for file in self.names(folder):
            value = self._file(file, kind)
            if value is None:
                continue
            name = getattr(value, name_field)
            if name in seen:
                message = f"the {name_field} `{name}` is also defined in {seen[name]}"
                self.problems.append(self.sources.problem(file, (name_field,), message))
            else:
                seen[name] = file
                yield name, (file, value)

    def names(self, folder: str) -> list[str]:
        """The folder's YAML files, sorted; a folder that is not there holds none."""
        try:
            entries = sorted(entry.name for entry in (self._root / folder).iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            self.problems.append(Problem(file=folder, message=_reason(error)))
            return []
        names = []
        for entry in entries:
            file = f"{folder}/{entry}"
            if entry.startswith("."):  # editors' and Kubernetes' own
                continue
            if entry.endswith(".yaml"):
                names.append(file)
            elif entry.lower().endswith((".yml", ".yaml")):
                message = "this file would be ignored; its name must end in `.yaml`"
                self.problems.append(Problem(file=file, message=message))
        return names

    def text(self, file: str) -> str | Decoded:
        """A file's text, or the one problem that keeps it from being read."""
        text = _read(self._root / file, file)
        self.contents[file] = (
            hashlib.sha256(text.encode()).hexdigest() if isinstance(text, str) else ""
        )
        return text

    def _file(self, file: str, kind: type[T]) -> T | None:
        text = self.text(file)
        decoded = text if isinstance(text, Decoded) else decode(text, file, kind)
        self.problems += decoded.problems
        self.sources.merge(decoded.locations)
        return decoded.value if isinstance(decoded.value, kind) else None


def _folded(contents: dict[str, str]) -> str:
    lines = (f"{digest or '-'} {file}\n" for file, digest in sorted(contents.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _decode_file(path: Path, file: str, kind: type[msgspec.Struct]) -> Decoded:
    text = _read(path, file)
    return text if isinstance(text, Decoded) else decode(text, file, kind)


def _require(decoded: Decoded, kind: type[T]) -> T:
    raise_errors(decoded.problems)
    assert isinstance(decoded.value, kind)
    return decoded.value


def _read(path: Path, file: str) -> str | Decoded:
    """The file's text, or the one problem that keeps it from being read."""
    try:
        # Not blocking, so that a pipe under this name cannot hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
                return _unreadable(file, f"{what}; a YAML file is expected here")
            data = _read_up_to(descriptor, MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        near = _near_file(path) if isinstance(error, FileNotFoundError) else ""
        return _unreadable(file, _reason(error), near)
    if len(data) > MAX_FILE_BYTES:
        return _unreadable(file, f"larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        return _unreadable(file, "not UTF-8 text", "save it as UTF-8", line, column)


def _read_up_to(descriptor: int, limit: int) -> bytes:
    data = b""
    while len(data) < limit and (more := os.read(descriptor, limit - len(data))):
        data += more
    return data


def _unreadable(
    file: str, message: str, suggestion: str = "", line: int = 0, column: int = 0
) -> Decoded:
    problem = Problem(file=file, line=line, column=column, message=message, suggestion=suggestion)
    return Decoded(None, [problem], {})


def _reason(error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "a directory where a file is expected"
        case NotADirectoryError():
            return "a file where a directory is expected"
        case PermissionError():
            return "this user may not read it"
        case OSError(strerror=str() as words):
            return f"cannot be read: {words.lower()}"
    return "not a usable path"


def _near_file(path: Path) -> str:
    """What to do about a file that is not there."""
    if path.is_symlink():
        return "the symbolic link points to nothing"
    if not path.parent.exists():
        return "its directory does not exist either"
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    similar = did_you_mean(path.name, [name for name in beside if name.endswith((".yaml", ".yml"))])
    return similar if similar.startswith("did") else ""
