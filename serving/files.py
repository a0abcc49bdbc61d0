"""Files that are whole or not there, also when the power goes; and files that are held."""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["append_line", "is_held", "lock", "stamp", "sync_folder", "try_lock", "write_whole"]


def stamp(path: Path) -> tuple[int, ...] | None:
    """What changes whenever a file does; None where there is none to be seen.

    The inode and its change time are part of it: a copy that keeps times and size cannot keep
    those, and a revoked token must not live on.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size


def write_whole(path: Path, content: bytes, *, mode: int = 0o600, exclusive: bool = False) -> None:
    """Put `content` at `path` in one step; a reader sees the old file or the new one.

    Args:
        path: its folder must exist.
        content: the whole file.
        mode: permissions of the file.
        exclusive: refuse to replace a file that is there.

    Raises:
        FileExistsError: `exclusive`, and there is one. OSError: the disk's own errors.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def append_line(path: Path, line: bytes, *, mode: int = 0o600) -> None:
    """Add one line (without its newline) and wait until it is on the disk.

    A line torn by an earlier crash is closed first, so that it cannot swallow this one.
    """
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
        written = file.write((b"\n" if torn else b"") + line + b"\n")
        if written != len(line) + 1 + torn:
            raise OSError(errno.ENOSPC, "the disk took only a part of a line")
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until what was made, renamed or removed in a folder is on the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """Hold a file, which is made if need be; None if another process does (or this one, already).

    The descriptor holds it: closed, or its process gone however it ended, the file is free. Nobody
    may remove it while it is in use. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a file, which is made if need be, while the block runs; waits for whoever has it.

    For what takes milliseconds: call it in a thread. Raises OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds a file that is there. Raises OSError, also if it is not."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
