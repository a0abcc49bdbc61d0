"""Model files: their digest, their place under the data directory, and whether they may be served.

Nothing in this module loads a model. `check` has a throw-away process do it and remembers
a file that passed, by digest, so a warm start opens no model at all.
"""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from serving.errors import InvalidArtifact
from serving.models.verdict import CheckLimits
from serving.types import Signature

__all__ = ["CheckLimits", "check", "check_golden", "check_many", "digest", "read", "stage"]

_CHUNK: Final = 1 << 20
_FORMAT: Final = 1
_MAX_GOLDEN_BYTES: Final = 4 << 20
"""Raise it when `examination` refuses or reads something new: files are then checked again."""


class _Remembered(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """DATA/checked/<sha256>.json: what a passed check found, and who looked."""

    format: int
    onnxruntime: str
    signature: Signature


@cache
def _onnxruntime() -> str:
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:  # another distribution of it, such as -gpu
        return "unknown"


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[int]:
    """Open a regular, non-empty file of acceptable size, never through a symbolic link."""
    try:
        # Non-blocking, so that a pipe in its place does not hang us before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = {
            errno.ENOENT: "the file does not exist",
            errno.ENOTDIR: "the file does not exist",
            errno.ELOOP: "it is a symbolic link; name the file itself",
            errno.EACCES: "the file may not be read by this user",
        }.get(error.errno or 0, f"the file cannot be opened ({error.strerror})")
        raise InvalidArtifact(reason) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidArtifact("it is not a regular file")
        if status.st_size == 0:
            raise InvalidArtifact("the file is empty")
        if status.st_size > max_bytes:
            raise InvalidArtifact(
                f"the file has {status.st_size} bytes; at most {max_bytes} are accepted"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, _CHUNK):
        yield chunk


def _compare(found: str, expected: str) -> None:
    if found != expected:
        raise InvalidArtifact(
            f"its sha256 is {found[:12]}…, but {expected[:12]}… was expected: "
            "another file, or one that was changed"
        )


def digest(path: Path, max_bytes: int = CheckLimits().max_file_bytes) -> str:
    """Compute a model file's SHA-256, in lower-case hex.

    Raises:
        InvalidArtifact: It is missing, empty, too large, a symbolic link or no file.
    """
    with _opened(path, max_bytes) as descriptor:
        result = hashlib.sha256()
        for chunk in _chunks(descriptor):
            result.update(chunk)
        return result.hexdigest()


def read(path: Path, sha256: str, max_bytes: int = CheckLimits().max_file_bytes) -> bytes:
    """Read a whole model file and return its bytes only if they have this digest.

    Raises:
        InvalidArtifact: As `digest`, or the digest is another.
    """
    with _opened(path, max_bytes) as descriptor:
        data = b"".join(_chunks(descriptor))
    _compare(hashlib.sha256(data).hexdigest(), sha256)
    return data


def stage(
    source: Path,
    sha256: str,
    artifacts_dir: Path,
    *,
    max_bytes: int = CheckLimits().max_file_bytes,
) -> Path:
    """Copy a model file to `artifacts_dir/<sha256>.onnx`, if its bytes have this digest.

    The digest is taken of the bytes as they are copied, so nobody can swap them in between,
    and the copy appears whole or not at all. A good copy that is already there is kept; one
    that is damaged, a link, or linked from elsewhere is replaced. Safe to call at the same
    time from several processes.

    Raises:
        InvalidArtifact: As `digest`, or the digest is another.
    """
    target = artifacts_dir / f"{sha256}.onnx"
    with suppress(InvalidArtifact, FileNotFoundError):
        if os.lstat(target).st_nlink == 1 and digest(target, max_bytes) == sha256:
            return target
    artifacts_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = artifacts_dir / f".{sha256[:16]}-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with _opened(source, max_bytes) as descriptor:
            result = hashlib.sha256()
            with os.fdopen(os.open(temporary, flags, 0o400), "wb") as copy:
                for chunk in _chunks(descriptor):
                    result.update(chunk)
                    copy.write(chunk)
                copy.flush()
                os.fsync(copy.fileno())
        _compare(result.hexdigest(), sha256)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _recall(sha256: str, checked_dir: Path) -> Signature | None:
    """Read what an earlier check found; anything unreadable or outdated counts as nothing."""
    try:
        text = (checked_dir / f"{sha256}.json").read_bytes()
        known = msgspec.json.decode(text, type=_Remembered)
    except (OSError, msgspec.DecodeError):  # ValidationError is a DecodeError
        return None
    current = known.format == _FORMAT and known.onnxruntime == _onnxruntime()
    return known.signature if current else None


def _remember(sha256: str, signature: Signature, checked_dir: Path) -> None:
    """Keep a pass; a disk that is full or read-only costs a check next time, nothing else."""
    temporary = checked_dir / f".{sha256[:16]}-{secrets.token_hex(8)}"
    known = _Remembered(_FORMAT, _onnxruntime(), signature)
    with suppress(OSError):
        checked_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.write_bytes(msgspec.json.encode(known))
        temporary.replace(checked_dir / f"{sha256}.json")


def check_many(
    paths: Iterable[Path],
    *,
    checked_dir: Path,
    limits: CheckLimits | None = None,
) -> dict[Path, Signature | InvalidArtifact]:
    """Check model files, all in one process as long as none of them brings it down.

    A file that crashes, hangs or exhausts the process is refused; the rest are checked in a
    new one. Blocks; call it from a thread if there is a loop. Needs no trust in the files:
    this process reads them only to take their digest.

    Returns:
        For every path its signature, or why it must not be served.
    """
    from serving.models.confinement import examine_apart  # noqa: PLC0415 - it imports us

    limits = limits or CheckLimits()
    verdicts: dict[Path, Signature | InvalidArtifact] = {}
    digests: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        try:
            sha256 = digest(path, limits.max_file_bytes)
        except InvalidArtifact as error:
            verdicts[path] = error
            continue
        known = _recall(sha256, checked_dir)
        if known is None:
            digests[path] = sha256
        else:
            verdicts[path] = known
    for path, verdict in examine_apart(digests, limits).items():
        if isinstance(verdict, Signature):
            _remember(digests[path], verdict, checked_dir)
        verdicts[path] = verdict
    return verdicts


def check(
    path: Path,
    sha256: str | None = None,
    *,
    checked_dir: Path,
    limits: CheckLimits | None = None,
) -> Signature:
    """Check one model file, as `check_many`.

    Args:
        path: The file; not a symbolic link.
        sha256: The digest it must have, if the caller knows.
        checked_dir: Where passed checks are remembered.
        limits: What the check may cost.

    Raises:
        InvalidArtifact: It must not be served; the message says why.
    """
    if sha256 is not None:
        _compare(digest(path, (limits or CheckLimits()).max_file_bytes), sha256)
    verdict = check_many([path], checked_dir=checked_dir, limits=limits)[path]
    if isinstance(verdict, InvalidArtifact):
        raise verdict
    return verdict


def check_golden(
    path: Path, sha256: str, examples: Path, *, limits: CheckLimits | None = None
) -> None:
    """Run a file's golden examples, in a process of its own. Blocks.

    Args:
        path: The model file.
        sha256: Its digest.
        examples: The file of `serving.models.golden`.
        limits: What it may cost.

    Raises:
        InvalidArtifact: An example differs, or cannot be read; the message says which and how.
    """
    from serving.models.confinement import examine_apart  # noqa: PLC0415 - it imports us

    try:
        with examples.open("rb") as file:
            text = file.read(_MAX_GOLDEN_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArtifact(f"its golden examples cannot be read: {words}") from error
    if len(text) > _MAX_GOLDEN_BYTES:
        raise InvalidArtifact(f"its golden examples are over {_MAX_GOLDEN_BYTES >> 20} MiB")
    if not text.strip():
        raise InvalidArtifact("its golden examples are an empty file")
    verdict = examine_apart({path: sha256}, limits or CheckLimits(), text)[path]
    if isinstance(verdict, InvalidArtifact):
        raise verdict
