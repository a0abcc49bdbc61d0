"""Start the checking process, follow what it reports, and end it when a file brings it down."""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from serving.errors import InvalidArtifact
from serving.models.verdict import Begun, Candidate, CheckLimits, Order, Passed, Refused, Report
from serving.types import Signature

__all__ = ["examine_apart"]

_MAX_LINE: Final = 8 << 20
_DECODER: Final = msgspec.json.Decoder(Report)


class _Broken(Exception):
    """The process ended, or had to be ended, before it was through. The argument says how."""


@contextmanager
def _process(order: Order) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the checker in an empty directory and a process group that ends with this block."""
    with tempfile.TemporaryDirectory(prefix="sluice-check-") as directory:
        process = subprocess.Popen(
            # Isolated: neither the environment nor the directory can add modules.
            [sys.executable, "-I", "-m", "serving.models.checker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env={
                **{k: v for k, v in os.environ.items() if k.startswith(("COVERAGE", "LD_", "LC_"))},
                "PATH": os.defpath,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",  # its threads would not count as ours to forbid
            },
            start_new_session=True,
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it is gone already; its exit status says why
                process.stdin.write(msgspec.json.encode(order))
            with suppress(BrokenPipeError):
                process.stdin.close()
            yield process
        finally:
            # Also after a clean end: whatever it may have left behind is in its group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _how_it_ended(status: int, limits: CheckLimits) -> str:
    if status == -signal.SIGXCPU:
        return f"it took more than {limits.cpu_seconds} s of processor time to load and run"
    if status < 0:
        name = signal.Signals(-status).name
        return f"loading or running it crashed the checker with signal {-status} ({name})"
    return f"loading or running it ended the checker with status {status}"


def _reports(process: "subprocess.Popen[bytes]", limits: CheckLimits) -> Iterator[Report]:
    """Yield what the checker reports; raise _Broken at its end or when a file takes too long."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    pending = b""
    allowed = limits.start_seconds
    until = time.monotonic() + allowed
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, until - time.monotonic())):
                raise _Broken(f"it was not loaded and run within {allowed:g} s")
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise _Broken(_how_it_ended(process.wait(), limits))
            *lines, pending = (pending + data).split(b"\n")
            if len(pending) > _MAX_LINE:
                raise _Broken("the checker's report on it is too long")
            for line in lines:
                report = _DECODER.decode(line)
                if isinstance(report, Begun):
                    allowed = limits.wall_seconds
                    until = time.monotonic() + allowed
                yield report


def _examine(
    candidates: Sequence[Candidate], limits: CheckLimits
) -> Iterator[tuple[int, Signature | InvalidArtifact | None]]:
    """Check candidates in one process; the last index may come with None: it must be retried."""
    order = Order(os.getpid(), limits, list(candidates))
    current, answered = -1, 0
    with _process(order) as process:
        try:
            for report in _reports(process, limits):
                current = report.index
                if isinstance(report, Passed):
                    yield current, report.signature
                elif isinstance(report, Refused):
                    yield current, InvalidArtifact(report.reason)
                else:
                    continue
                answered += 1
                if answered == len(candidates):
                    return
        except _Broken as error:
            if current < 0:
                yield 0, InvalidArtifact(f"it could not be checked: the checker's start: {error}")
            elif current == 0:
                yield 0, InvalidArtifact(str(error))
            else:
                # Files before it may have filled the memory: only a file that breaks a fresh
                # process is to blame.
                yield current, None


def examine_apart(
    files: Mapping[Path, str], limits: CheckLimits, golden: str = ""
) -> dict[Path, Signature | InvalidArtifact]:
    """Check files (path to expected digest) in throw-away processes, as few as will do.

    With `golden`, the text of golden examples, every file must give their outputs too. Every
    process ends before this returns, whatever happens.
    """
    verdicts: dict[Path, Signature | InvalidArtifact] = {}
    waiting = list(files)
    while waiting:
        candidates = [Candidate(str(path.absolute()), files[path], golden) for path in waiting]
        for index, verdict in _examine(candidates, limits):
            if verdict is not None:
                verdicts[waiting[index]] = verdict
        waiting = [path for path in waiting if path not in verdicts]
    return verdicts
