"""The data directory: who owns it now, and how its sockets are named in 107 bytes.

What the engine keeps there:

- `run/engine.lock` is locked (flock) while an engine runs.
- `run/engine.json` says what runs, see `serving.engine.report`.
- `run/worker-<n>.running`, `.crash` and `.last-crash` say what a worker that died was doing
  (`serving.quarantine`); `*.trial` who tried a model file first (`serving.worker.first_tries`).
- `run/orders.json`, `run/settings/` and `run/roll.json` are what engines follow, see
  `serving.config.applied`; `run/directions.json` and `run/engine.name` say where another node has
  them from, see `serving.config.directions`.
- `run/control.sock` and `run/worker-<n>.sock` are the processes' private listeners.
- `run/spread-<n>.sock` and `run/spread-*.table` are how workers even out connections
  (`serving.worker.spread`).
- `run/h-<id>-<n>.sock` and `run/p-<id>-<n>.sock` are a model host's, see `serving.config.hosts`.
- `store/` holds the embedded store's files and its `store.sock`.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from serving.errors import EngineError
from serving.files import try_lock

__all__ = ["DataDirectory", "short_alias"]

# sun_path in sys/un.h holds 108 bytes with its final NUL; see unix(7).
LONGEST_SOCKET_PATH: Final = 107
_LONGEST_NAME: Final = len("/run/h-0123456789-999.sock")


class DataDirectory:
    """One data directory, locked for this process from `claim` to `release`.

    `path` is what the processes are told: the directory itself, or a short symbolic link to it
    if its sockets would not fit into an address.
    """

    def __init__(self, real_path: Path) -> None:
        self.real_path: Final = real_path.absolute()
        self.path: Final = short_alias(self.real_path)
        self._lock: int | None = None
        self._made: list[Path] = []

    @property
    def run(self) -> Path:
        """Where sockets and `engine.json` are."""
        return self.path / "run"

    @property
    def store(self) -> Path:
        """Where the embedded store keeps its files."""
        return self.path / "store"

    @property
    def engine_json(self) -> Path:
        """What runs here."""
        return self.run / "engine.json"

    @property
    def control_socket(self) -> Path:
        """Control's private listener."""
        return self.run / "control.sock"

    def worker_socket(self, number: int) -> Path:
        """Worker `number`'s private listener."""
        return self.run / f"worker-{number}.sock"

    def claim(self, *, least_free: int = 0) -> None:
        """Create the directory, lock it, and clear what a killed engine left.

        Args:
            least_free: bytes that its disk must have free.

        Raises:
            EngineError: Another engine runs on it, it cannot be written, or its disk is (nearly)
                full. Nothing is left behind.
        """
        try:
            self._claim(least_free)
        except BaseException:
            self._remove_made()
            raise

    def _claim(self, least_free: int) -> None:
        try:
            _insist_on_room(self.real_path, least_free)
            for directory in (self.real_path, self.real_path / "run", self.real_path / "store"):
                self._make(directory)
            if self.path != self.real_path:
                _point(self.path, self.real_path)
            self._lock = _lock(self.real_path / "run" / "engine.lock")
        except OSError as error:
            raise EngineError(
                f"the data directory {self.real_path} cannot be used: {error.strerror}; "
                "choose another with --data"
            ) from error
        if self._lock is None:
            raise EngineError(
                f"another gateway is running on the data directory {self.real_path}; stop it, "
                "or choose another directory with --data"
            )
        self._clear()

    def visit(self) -> None:
        """Make it usable on a node where nobody claims it: the directory, and its short name.

        Raises:
            OSError: it cannot be made.
            EngineError: the short name's folder is somebody else's.
        """
        (self.real_path / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.path != self.real_path:
            _point(self.path, self.real_path)

    def release(self) -> None:
        """Remove sockets, report, lock and alias. The data stays. Does nothing if not claimed."""
        if self._lock is None:
            return
        self._clear()
        if self.path != self.real_path:
            self.path.unlink(missing_ok=True)
        (self.real_path / "run" / "engine.lock").unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None
        self._remove_made()

    def _make(self, directory: Path) -> None:
        if not directory.exists():
            self._make(directory.parent)
            with contextlib.suppress(FileExistsError):  # another engine was faster
                directory.mkdir(mode=0o700)
                self._made.append(directory)

    def _remove_made(self) -> None:
        """A start that came to nothing leaves no empty directories of ours."""
        if any(not found.is_dir() for found in self.real_path.rglob("*")):
            self._made.clear()
        while self._made:
            with contextlib.suppress(OSError):  # somebody has put something beside us
                self._made.pop().rmdir()

    def _clear(self) -> None:
        names = (
            *("*.sock", "*.new", "*.running", "*.crash", "*.last-crash", "*.trial"),
            *("engine.json*", "gateway.json", "steering.lock", "roll.lock", "stopping"),
            *("node-metrics.lock", "spread-*.table"),
            *("orders.json", "roll.json", "settings/*.json"),
            *("directions.json", "directions.lock", "engine.name", "node.lock"),
        )
        for leftover in [path for name in names for path in self.run.glob(name)]:
            leftover.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (self.run / "settings").rmdir()


def _insist_on_room(path: Path, least_free: int) -> None:
    """Refuse a disk that is full now, rather than when a process dies of it."""
    there = next(place for place in (path, *path.parents) if place.exists())
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    if free < least_free:
        raise EngineError(
            f"the disk of the data directory {path} has {free >> 20} MiB free, and a start needs "
            f"{least_free >> 20} MiB; make room, or choose another directory with --data"
        )


def short_alias(path: Path) -> Path:
    """`path` if its sockets' names fit into an address, else a short name that stands for it.

    The short name is the same for every process of this user, so a reader can find it; only
    `DataDirectory.claim` creates it.
    """
    if len(os.fsencode(path)) + _LONGEST_NAME <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    name = f"sluice-{os.getuid()}"
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108
    for base in candidates:
        alias = Path(base) / name / digest
        if alias.is_absolute() and len(os.fsencode(alias)) + _LONGEST_NAME <= LONGEST_SOCKET_PATH:
            return alias
    raise EngineError("every temporary directory's path is too long for a Unix socket")


def _point(alias: Path, target: Path) -> None:
    """Make `alias` a link to `target`, in a directory that is ours alone."""
    alias.parent.mkdir(mode=0o700, exist_ok=True)
    found = alias.parent.lstat()
    # In a shared /tmp somebody else could have made it first and would then own our sockets.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EngineError(
            f"{alias.parent} is not a directory that only you can enter; remove it, or choose a "
            "data directory with a shorter path (--data)"
        )
    if alias.is_symlink() and alias.readlink() == target:
        return
    alias.unlink(missing_ok=True)
    alias.symlink_to(target)


def _lock(path: Path) -> int | None:
    """An open, exclusively locked file, or None if another process holds it."""
    while (descriptor := try_lock(path)) is not None:
        # The engine before us may have removed the file between our open and our lock.
        try:
            current = path.stat().st_ino
        except FileNotFoundError:
            current = -1
        if current == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)
    return None
