"""What control and workers say to each other through the store, where it is, and under which keys.

Everything of this project in the store starts with `sluice:`. Control writes the snapshot,
workers write their reports; neither imports the other.
"""

from typing import Final, Literal

import msgspec

__all__ = [
    "REPORT_SECONDS",
    "SILENT_SECONDS",
    "SNAPSHOT_CHANNEL",
    "SNAPSHOT_KEY",
    "STORE_VARIABLE",
    "WORKERS_KEY",
    "WorkerReport",
    "WorkerState",
]

SNAPSHOT_KEY: Final = "sluice:snapshot"
"""String: the current `Snapshot` as JSON. The revision inside it rules."""

SNAPSHOT_CHANNEL: Final = "sluice:snapshots"
"""Channel: the revision in decimal, sent after `SNAPSHOT_KEY` holds it. Only a hint: a
subscriber reads the key, and reads it again after every reconnect."""

STORE_VARIABLE: Final = "SLUICE_STORE"
"""Environment variable in which an engine hands a process the store's address.

Not an argument, because the address may hold a password: everybody on the machine may read
/proc/PID/cmdline, only the owner /proc/PID/environ (proc(5))."""

WORKERS_KEY: Final = "sluice:workers"
"""Hash: worker id to its latest `WorkerReport` as JSON."""

REPORT_SECONDS: Final = 1.0
"""How often a worker reports when nothing changes; it reports at once when something does."""

SILENT_SECONDS: Final = 5.0
"""A worker whose report is older than this counts as gone."""

WorkerState = Literal["starting", "loading", "ready", "draining"]


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's own account of itself.

    `revision` is the one it answers with, 0 before the first. `refused_revision` is the latest
    one it could not load, with the reason; it then goes on serving `revision`. `not_ready`
    names versions of the served revision that do not answer (`model/version` to reason).
    `reported_at` is wall-clock seconds. `busy` is the share of a core used lately, `node` the
    name of the machine. `generation` is the one of the settings it was started with
    (`serving.config.applied`).
    """

    worker: str
    state: WorkerState
    revision: int
    reported_at: float
    pid: int = 0
    resident_bytes: int = 0
    in_flight: int = 0
    busy: float = 0.0
    node: str = ""
    generation: int = 0
    refused_revision: int = 0
    refused_reason: str = ""
    not_ready: dict[str, str] = {}
