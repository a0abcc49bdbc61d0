"""Looks after the log of one node: `python -m serving.recording.keeper`; a worker starts it.

It turns segments into Parquet when nobody writes them any more, closes the accounts of writers
that are gone, merges files of past hours, and deletes what is too old or too much. Whatever
it cannot do now it tries again later; requests never wait for it.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

from serving import logs
from serving.config.schema import LogConfig
from serving.config.snapshot_codec import dec_hook
from serving.files import append_line, try_lock
from serving.lifeline import die_with_parent
from serving.metrics import MetricsFile
from serving.recording.layout import LogFolder, SegmentName
from serving.recording.ledger import DROPPED, read_ledger
from serving.recording.lock import held
from serving.recording.parquet import convert, merge
from serving.recording.removed import note_removed
from serving.recording.retention import Kept, to_remove
from serving.recording.writers import Account, close_account, is_alive, note_converted

__all__ = ["Keeper", "main"]

_LOG = logging.getLogger("log-keeper")
_TURN_SECONDS: Final = 2.0
_TIDY_SECONDS: Final = 30.0
_HOUR_SECONDS: Final = 3600.0
_NICENESS: Final = 10


class Keeper:
    """One node's share of the work; of what concerns all nodes, one keeper does it at a time.

    Args:
        config: options of the log.
        log: its folder.
        node: whose segments to look after.
        metrics: where to count.
        settled: seconds after the end of an hour from which its files are merged.
    """

    def __init__(
        self,
        config: LogConfig,
        log: LogFolder,
        node: str,
        metrics: MetricsFile,
        *,
        settled: float = 600.0,
    ) -> None:
        self._config = config
        self._log = log
        self._segments = log.segments / node
        self._metrics = metrics
        self._settled = max(settled, 2 * float(config.segment_age))
        self._tidied = float("-inf")
        self._stubborn: set[tuple[Path, ...]] = set()
        """Files that could not be merged; they are left alone until this process ends."""

    def turn(self, now: float) -> None:
        """Do what is due.

        Args:
            now: seconds since 1970.
        """
        for folder in self._writers():
            with self._tolerantly(f"segments of {folder.name}"):
                self._look_after(folder)
        if now - self._tidied >= _TIDY_SECONDS:
            self._tidied = now
            with self._tolerantly("tidying up"), self._alone() as mine:
                if mine:
                    self._merge(now)
                    self._remove(now)

    def _writers(self) -> list[Path]:
        try:
            return sorted(path for path in self._segments.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def _look_after(self, folder: Path) -> None:
        # Asked first: what a writer that is gone has left open cannot grow any more.
        alive = is_alive(folder)
        segments = [SegmentName.parse(path) for path in sorted(folder.glob("*~*~*"))]
        for segment in segments:
            if segment is not None and (segment.sealed or not alive):
                self._convert(folder, segment)
        if not alive:
            told = read_ledger(folder / "ledger", told=True)
            self._tell(close_account(self._log, folder), told)

    def _convert(self, folder: Path, segment: SegmentName) -> None:
        identity = segment.identity
        done = convert(self._log, segment, lambda rows: note_converted(folder, identity, rows))
        self._count_file("converted")
        for damage in done.damages:
            if segment.sealed:  # an open segment of a killed writer may end in half a message
                self._count_file("damaged")
                _LOG.error(
                    "%s: %d bytes at %d cannot be read: %s",
                    segment.path.name,
                    damage.length,
                    damage.offset,
                    damage.reason,
                )
            append_line(
                self._log.root / "gaps.jsonl",
                msgspec.json.encode(
                    {"segment": identity, "model": segment.model} | msgspec.to_builtins(damage)
                ),
            )

    def _tell(self, closed: Account, told: dict[str, int]) -> None:
        """Bring `/metrics` up to what the account says of a writer that cannot do so itself."""
        final = {
            "offered": closed.offered,
            "logged": closed.logged + closed.damaged,
            "sampled_out": closed.sampled_out,
            **{reason: closed.dropped[reason] for reason in DROPPED},
        }
        for outcome, rows in final.items():
            self._metrics.counter("sluice_log_rows_total", outcome=outcome).inc(
                max(0, rows - told[outcome])
            )
        self._metrics.counter("sluice_log_rows_total", outcome="crash").inc(closed.crash)
        if closed.crash:
            _LOG.warning("%s died with %d rows not written", closed.writer, closed.crash)

    def _merge(self, now: float) -> None:
        for folder in sorted(self._log.parquet.glob("model=*/hour=*")):
            files = tuple(sorted(path for path in folder.glob("*.parquet")))
            if len(files) < 2 or _end_of(folder) + self._settled > now or files in self._stubborn:
                continue
            try:
                merge(self._log, files)
            except (pa.ArrowException, OSError) as error:
                self._stubborn.add(files)
                _LOG.warning("%d files of %s are not merged: %s", len(files), folder.name, error)
            else:
                self._count_file("merged")

    def _remove(self, now: float) -> None:
        live = sum(_size(segment.path) for segment in self._log.live())
        files = [
            Kept(_end_of(path.parent), path, _size(path))
            for path in self._log.parquet.glob("model=*/hour=*/*.parquet")
        ]
        removals = to_remove(
            files,
            now=now,
            retention=float(self._config.retention),
            room=int(self._config.max_size),
            live=live,
        )
        if removals:
            with held(self._log.lock, alone=True):
                for removal in removals:
                    note_removed(self._log, removal.path, removal.reason)
                    removal.path.unlink(missing_ok=True)
                    self._count_file(removal.reason)
                    with contextlib.suppress(OSError):
                        removal.path.parent.rmdir()  # refuses while there is another file
        total = live + sum(file.size for file in files) - sum(one.size for one in removals)
        self._metrics.gauge("sluice_log_bytes").set(total)

    def _count_file(self, outcome: str) -> None:
        self._metrics.counter("sluice_log_files_total", outcome=outcome).inc()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other node's keeper tidies up right now."""
        descriptor = try_lock(self._log.root / "keeper.lock")
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    @contextlib.contextmanager
    def _tolerantly(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, pa.ArrowException) as error:
            _LOG.warning("%s: %s; trying again", what, error)


def _end_of(folder: Path) -> float:
    hour = datetime.strptime(folder.name.partition("=")[2], "%Y-%m-%dT%H").replace(tzinfo=UTC)
    return hour.timestamp() + _HOUR_SECONDS


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m serving.recording.keeper",
        description="Looks after one node's prediction log. A worker starts it; see `sluice up`.",
    )
    parser.add_argument("--log", required=True, type=Path, help="folder of the log")
    parser.add_argument("--metrics", required=True, type=Path, help="folder of metrics files")
    parser.add_argument("--node", required=True, help="whose segments to look after")
    parser.add_argument("--config", required=True, help="options of the log, as JSON")
    parser.add_argument("--parent", required=True, type=int, help="exit when this process does")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; what is under way is finished."""
    arguments = _arguments(argv)
    die_with_parent(arguments.parent)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICENESS)
    pa.set_cpu_count(1)
    logs.configure("info", "text", process="log-keeper")
    config = msgspec.json.decode(arguments.config, type=LogConfig, dec_hook=dec_hook)
    arguments.metrics.mkdir(parents=True, exist_ok=True)
    metrics = MetricsFile(arguments.metrics / f"log-keeper-{os.getpid()}-{time.time_ns()}.metrics")
    keeper = Keeper(config, LogFolder(arguments.log), arguments.node, metrics)
    while not stop.is_set():
        keeper.turn(time.time())
        stop.wait(_TURN_SECONDS)
    metrics.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
