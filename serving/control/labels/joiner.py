"""The process that joins: `python -m serving.control.labels.joiner LOG PARENT`; control starts it.

One `Order` a line on standard input, one answer a line on standard output, one at a time. What a
query needs of memory is bounded here, by DuckDB's own limit and by the kernel's, so that a large
log costs a refused report and not a gateway. It reads LOG and nothing else, and dies with its
parent.
"""

import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Final

import duckdb
import msgspec

from serving.control.labels.joiner_orders import (
    Answer,
    Failed,
    Found,
    LookUp,
    Losses,
    Order,
    Report,
    RolloutLosses,
)
from serving.control.labels.loss_windows import measure_losses
from serving.control.labels.performance import measure
from serving.control.labels.rollout_losses import measure_rollout
from serving.lifeline import die_with_parent
from serving.recording.joined import LogLacks
from serving.recording.label_states import look_up
from serving.recording.views import literal

__all__ = ["connect", "main"]

_MEMORY: Final = "512MiB"
_SPILL: Final = "4GiB"
_PROCESS_BYTES: Final = 2 << 30
"""Writable memory of the whole process: DuckDB's, Arrow's and ours."""


def connect(log: Path, memory: str = _MEMORY) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that may read `log`, spill under it, and reach nothing else."""
    spill = log / "labels" / ".spill" / str(os.getpid())
    for left in spill.parent.glob("*"):
        if not Path("/proc", left.name).exists():
            shutil.rmtree(left, ignore_errors=True)  # of one that was killed
    spill.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory,
            "threads": "1",
            "temp_directory": str(spill),
            "max_temp_directory_size": _SPILL,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "false",
        },
    )
    connection.execute(f"SET allowed_directories = [{literal(str(log))}, '/proc/self/fd']")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def answer(connection: duckdb.DuckDBPyConnection, log: Path, order: Order) -> Answer:
    """Do one thing; whatever goes wrong becomes words."""
    try:
        return _done(connection, log, order)
    except LogLacks as error:
        return Failed(words=str(error))
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        sys.stderr.write(f"joiner: {error!r}\n")
        words = f"it needs more than {_MEMORY} of memory; ask for a shorter time"
        return Failed(words=words, large=True)
    except (duckdb.Error, OSError) as error:
        sys.stderr.write(f"joiner: {error}\n")
        return Failed(words="the log cannot be read; control's log says why", ours=True)


def _done(connection: duckdb.DuckDBPyConnection, log: Path, order: Order) -> Answer:
    match order:
        case LookUp():
            kept, made = look_up(connection, log, order.model, order.labels, order.entity)
            return Found(kept=dict(kept), made=dict(made))
        case Report():
            return measure(connection, log, order)
        case Losses():
            return measure_losses(connection, log, order)
        case RolloutLosses():
            return measure_rollout(connection, log, order)


def main(argv: list[str] | None = None) -> None:
    """Answer until standard input ends."""
    log, parent = argv if argv is not None else sys.argv[1:]
    die_with_parent(int(parent))
    resource.setrlimit(resource.RLIMIT_DATA, (_PROCESS_BYTES, _PROCESS_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints must not look like an answer
    connection = connect(Path(log))
    decoder: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
    for line in sys.stdin.buffer:
        told = msgspec.json.encode(answer(connection, Path(log), decoder.decode(line))) + b"\n"
        while told:
            told = told[os.write(answers, told) :]


if __name__ == "__main__":
    main()
