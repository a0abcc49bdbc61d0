"""What control and workers say to each other through the store, where it is, and under which keys.

Everything of this project in the store starts with `sluice:`. Control writes the snapshot,
workers write their reports; neither imports the other.
"""

import os
import platform
from typing import Final, Literal

import msgspec

__all__ = [
    "DATA_VARIABLE",
    "DIRECTIONS_CHANNEL",
    "DIRECTIONS_KEY",
    "METRICS_KEY",
    "NODES_KEY",
    "NODE_VARIABLE",
    "REPORT_SECONDS",
    "ROLLOUTS_KEY",
    "SILENT_SECONDS",
    "SNAPSHOT_CHANNEL",
    "SNAPSHOT_KEY",
    "STORE_VARIABLE",
    "WORKERS_KEY",
    "WorkerReport",
    "WorkerState",
    "node_name",
    "rollout_events_key",
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
"""Hash: `WorkerReport.key` to that worker's latest report as JSON."""

METRICS_KEY: Final = "sluice:metrics"
"""Hash: node to what its processes have counted (`serving.metrics_exchange`), of nodes that control
does not run on."""

DIRECTIONS_KEY: Final = "sluice:directions"
"""Hash: a start of the gateway to its current `Directions` (`serving.config.directions`) as JSON.

The revision inside them rules. By start: a gateway may be started beside the one it replaces."""

DIRECTIONS_CHANNEL: Final = "sluice:directed"
"""Channel: that revision in decimal, sent after `DIRECTIONS_KEY` holds it; a hint, as above."""

NODES_KEY: Final = "sluice:nodes"
"""Hash: node to its latest `NodeReport` as JSON, of nodes that control does not run on."""

ROLLOUTS_KEY: Final = "sluice:rollouts"
"""Hash: a rollout's id to how many events it has."""

DATA_VARIABLE: Final = "SLUICE_DATA"
"""Environment variable of a Ray node: its data directory, where that is not the launcher's path."""

NODE_VARIABLE: Final = "SLUICE_NODE"
"""Environment variable that names this node, where the machine's own name is not unique."""

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

    @property
    def key(self) -> str:
        """Tells this worker from those of other nodes, which have the same names."""
        return f"{self.worker}@{self.node}"


def node_name() -> str:
    """The name of the machine that this process runs on."""
    return os.environ.get(NODE_VARIABLE) or platform.node()


def rollout_events_key(rollout: str) -> str:
    """Hash: revision in decimal to that event of a rollout as JSON. An event is written once."""
    return f"sluice:rollout:{rollout}:events"
