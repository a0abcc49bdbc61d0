"""`DATA/run/engine.json`: what an engine runs, for `sluice status` and other readers."""

from pathlib import Path

import msgspec

from serving.engine.lifecycle import State

__all__ = [
    "Addresses",
    "EngineReport",
    "ProcessReport",
    "process_started",
    "read_report",
    "write_report",
]


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """`host:port` of each listener, with the real ports."""

    http: str
    grpc: str
    admin: str


class ProcessReport(msgspec.Struct, frozen=True, kw_only=True):
    """One supervised process.

    `pid` is None while none runs. `restarts` counts since the engine started, `failures` in a
    row. `last_exit` says how the latest incarnation ended, empty if none has. `since` is when
    it entered `state`, wall-clock seconds.
    """

    name: str
    state: State
    pid: int | None = None
    restarts: int = 0
    failures: int = 0
    last_exit: str = ""
    since: float = 0.0
    replica: str = ""
    """The Ray Serve replica that keeps it; empty under the local engine."""

    serves: str = ""
    """A model host's `model/version`; empty for other processes."""


class EngineReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one engine runs; `data` is the directory under the name its sockets have.

    `pid_started` (`process_started(pid)`) tells this engine from a later process of that pid.
    """

    pid: int
    pid_started: str
    started_at: float
    configuration: str
    data: str
    addresses: Addresses
    processes: list[ProcessReport]
    engine: str = "local"

    @property
    def alive(self) -> bool:
        """Whether the process that wrote it still exists."""
        return process_started(self.pid) == self.pid_started != ""


def process_started(pid: int) -> str:
    """When process `pid` was started, in the kernel's ticks since boot; empty if there is none.

    Field 22 of /proc/PID/stat, see proc_pid_stat(5); the name in field 2 may hold spaces.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    fields = stat[stat.rindex(b")") + 2 :].split()
    return "" if fields[0] == b"Z" else fields[19].decode()


def write_report(path: Path, report: EngineReport) -> None:
    """Replace the file in one step, so that no reader sees half of it."""
    fresh = path.with_suffix(".json.new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    fresh.chmod(0o600)
    fresh.replace(path)


def read_report(path: Path) -> EngineReport | None:
    """What an engine wrote, or None if there is no such file or it is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=EngineReport)
    except (OSError, msgspec.DecodeError):
        return None
