"""One process of a replica: its number, the lock on it, and the report for the launcher."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from serving.engine.log_lines import prefixed
from serving.engine.report import ProcessReport, process_started
from serving.engine.rolling import Member
from serving.engine.supervised import ProcessSpec, SupervisedProcess
from serving.errors import EngineError
from serving.files import try_lock

__all__ = ["Kept", "ReplicaReport", "claim_number", "print_line", "read_reports"]

_MOST_WORKERS: Final = 256


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """`DATA/run/<process>.replica`: a process as the replica that keeps it sees it."""

    process: ProcessReport
    supervisor: int
    supervisor_started: str
    explanation: str = ""
    last_lines: list[str] = []

    @property
    def alive(self) -> bool:
        """Whether the replica that wrote it still exists."""
        return process_started(self.supervisor) == self.supervisor_started != ""


def read_reports(run: Path) -> list[ReplicaReport]:
    """What living replicas of this machine have written, by name."""
    found = []
    for file in run.glob("*.replica"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            report = msgspec.json.decode(file.read_bytes(), type=ReplicaReport)
            if report.alive:
                found.append(report)
    return sorted(found, key=lambda report: (report.process.name != "control", report.process.name))


def claim_number(run: Path, kind: str) -> tuple[int, int]:
    """The lowest number that no other process of a kind on this machine has, and its lock.

    A lock, not a list: the kernel lets go of it however its owner ends.

    Raises:
        EngineError: All are taken.
    """
    for number in range(_MOST_WORKERS):
        if (lock := try_lock(run / f"{kind}-{number}.lock")) is not None:
            return number, lock
    raise EngineError(f"{_MOST_WORKERS} processes of a kind run on {run.parent} already")


class Kept:
    """A process, from its first start to `forget`.

    Args:
        spec: what runs.
        run: where its report goes.
        socket: its private one.
        replica: names the replica.
        generation: what it is started with.
        number: a worker's or a host's.
        lock: holds that number; closed by `forget`.
        serves: a host's `model/version`.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        run: Path,
        *,
        socket: Path,
        replica: str,
        generation: int,
        number: int = 0,
        lock: int | None = None,
        serves: str = "",
    ) -> None:
        self._replica = replica
        self._serves = serves
        self._file = run / f"{spec.name}.replica"
        self._lock = lock
        process = SupervisedProcess(spec, lines=print_line, on_change=self._changed)
        self.member: Final = Member(process, number, generation, socket)

    @property
    def process(self) -> SupervisedProcess:
        """The supervised process."""
        return self.member.process

    @property
    def task(self) -> "asyncio.Task[None] | None":
        """What supervises it, None before the start."""
        return self.member.task

    def forget(self) -> None:
        """Remove the report and let go of the number; the process is gone."""
        self._file.unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _changed(self) -> None:
        report = ReplicaReport(
            process=msgspec.structs.replace(
                self.process.report, replica=self._replica, serves=self._serves
            ),
            supervisor=os.getpid(),
            supervisor_started=process_started(os.getpid()),
            explanation=self.process.explanation,
            last_lines=list(self.process.last_lines),
        )
        fresh = self._file.with_suffix(".replica-new")
        with contextlib.suppress(OSError):  # a full disk costs a report, not the process
            fresh.write_bytes(msgspec.json.encode(report))
            fresh.replace(self._file)


def print_line(process: str, line: str) -> None:
    """Say something to whoever watches the gateway: a process's line, under its name."""
    # Not sys.stderr: Serve sends that to a file of its own; Ray brings this to the launcher.
    os.write(2, f"{prefixed(process, line)}\n".encode())
