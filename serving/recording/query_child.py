"""`python -m serving.recording.query_child`: the process that one query runs in.

Standard input is one JSON `Request`; standard output the answer as an Arrow IPC stream; standard
error one JSON `Message` a line. The process can neither write a file nor read one that is not of
the log, and holds no more memory than it was allowed.
"""

import itertools
import os
import re
import resource
import sys
import threading
from pathlib import Path
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa

from serving.errors import SluiceError
from serving.lifeline import die_with_parent
from serving.recording.layout import LogFolder
from serving.recording.query_wire import Message, Request
from serving.recording.reading import OpenLog
from serving.recording.statements import QueryRefused, the_query
from serving.recording.views import ALL_MODELS, register, run

__all__: list[str] = []

_BATCH_ROWS: Final = 8192
_PROGRESS_SECONDS: Final = 0.2
_MOST_THREADS: Final = 4
"""There are answers to be given beside this one."""

_HELD_BYTES: Final = 32 << 20
_SPARE_BYTES: Final = 256 << 20
"""For what is not DuckDB's: segments on their way in, the answer on its way out."""

_OUT_OF_MEMORY: Final = "Out of Memory Error"
_PINNED: Final = re.compile(r"/proc/self/fd/\d+")


class HalfAnswered(SluiceError):
    """The rest of an answer cannot be had."""


def main() -> None:
    """Answer one query; exit code 1 after an error, which was told."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=Request)
    die_with_parent(request.parent)
    # What is asked for here is never worth a deadline of the gateway beside it.
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # pipes are no files
    try:
        _answer(request)
    except (SluiceError, OSError, pa.ArrowException, duckdb.Error) as error:
        _say(_told(error, request))
        sys.exit(1)
    except MemoryError:
        _say(_too_large(request))
        sys.exit(1)


def _answer(request: Request) -> None:
    query = the_query(request.sql)
    folder = LogFolder(Path(request.log))
    wanted = _models(query, folder.models())
    _limit(request.memory)
    with OpenLog(folder, wanted, since=request.since, until=request.until) as log:
        out = _Out()
        try:
            _run(query, request, log, wanted, out)
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if not (_of_a_file(error) and _leave_out(log)):
                raise
            if out.begun:
                files = ", ".join(damage.file for damage in log.damages)
                raise HalfAnswered(
                    f"{files} cannot be read, which was noticed when a part of the answer was out; "
                    "move what is damaged out of the log, and ask again"
                ) from error
            _run(query, request, log, wanted, out)
        _say(Message(damages=log.damages))


def _models(query: str, there: list[str]) -> list[str]:
    """Those that a query may be about: whose name is in it; all, if there is none or `predictions`.

    One too many costs time, one too few an answer; so no more is read into the text than that.
    """
    text = query.casefold()
    named = [name for name in there if name in text]
    return there if ALL_MODELS in text or not named else named


class _Out:
    """Standard output, on which an answer begins when it is complete or has grown large.

    So a query that comes upon a damaged file can mostly be made again without it.
    """

    def __init__(self) -> None:
        self.begun = False

    def send(self, reader: Any) -> None:
        """Send all batches."""
        held, size = [], 0
        for batch in reader:
            held.append(batch)
            size += batch.nbytes
            if size > _HELD_BYTES:
                break
        self.begun = True
        schema = _distinct(reader.schema)
        with pa.ipc.new_stream(sys.stdout.buffer, schema) as stream:
            for batch in itertools.chain(held, reader):
                stream.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
        sys.stdout.buffer.flush()


def _run(query: str, request: Request, log: OpenLog, models: list[str], out: _Out) -> None:
    """Ask, and send the answer."""
    connection = duckdb.connect(":memory:")
    for setting in (
        f"memory_limit='{request.memory // 1024}KiB'",
        f"threads={min(_MOST_THREADS, os.cpu_count() or 1)}",
        "temp_directory=''",  # rows of people are not spilled to some other folder
        "TimeZone='UTC'",
        "python_enable_replacements=false",
        "autoinstall_known_extensions=false",
        "autoload_known_extensions=false",
        "allow_community_extensions=false",
    ):
        run(connection, f"SET {setting}")
    register(
        connection,
        log,
        models,
        since=request.since,
        until=request.until,
        told=lambda done, of: _say(Message(stage=f"opening {done + 1} of {of} models")),
    )
    paths = ", ".join(f"'{file.pinned}'" for file in log.parquet)
    run(connection, f"SET allowed_paths=[{paths}]")
    run(connection, "SET enable_external_access=false")
    run(connection, "SET lock_configuration=true")
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(connection, done), daemon=True)
    watcher.start()
    try:
        out.send(connection.sql(query).to_arrow_reader(_BATCH_ROWS))
    finally:
        done.set()
        watcher.join()


def _distinct(schema: pa.Schema) -> pa.Schema:
    """A schema whose names differ: the second `n` is `n_2`."""
    names: list[str] = []
    for name in schema.names:
        free, number = name, 1
        while free in names:
            number += 1
            free = f"{name}_{number}"
        names.append(free)
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def _watch(connection: duckdb.DuckDBPyConnection, done: threading.Event) -> None:
    while not done.wait(_PROGRESS_SECONDS):
        share = connection.query_progress()
        if share >= 0:
            _say(Message(stage="reading", percent=share))


def _of_a_file(error: Exception) -> bool:
    """Whether DuckDB may have come upon a damaged file, by what it raised on files that were.

    What happens behind the first rows is Arrow's error with DuckDB's words.
    """
    if isinstance(error, BrokenPipeError) or _OUT_OF_MEMORY in str(error):
        return False
    if isinstance(error, (pa.ArrowException, OSError)):
        return True
    if isinstance(error, duckdb.InvalidInputException):
        return "Failed to read file" in str(error)
    return type(error) is duckdb.Error or isinstance(error, duckdb.IOException)


def _leave_out(log: OpenLog) -> bool:
    """Look at every byte of every Parquet file, and leave out those that cannot be read."""
    return None in [log.check(file) for file in list(log.parquet)]


def _limit(memory: int) -> None:
    """Let this process have so much more memory than it has now."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    [has] = [int(line.split()[1]) for line in text.splitlines() if line.startswith("VmData")]
    most = (has << 10) + memory + _SPARE_BYTES
    # Address space is more than memory: threads and allocators reserve what they never touch.
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _told(error: Exception, request: Request) -> Message:
    """An error in words for who asked."""
    if isinstance(error, duckdb.OutOfMemoryException) or _OUT_OF_MEMORY in str(error):
        return _too_large(request)
    if isinstance(error, SluiceError):
        refused = isinstance(error, QueryRefused)
        return Message(error=error.message, kind="refused" if refused else "failed")
    text = str(error).strip()
    if isinstance(error, duckdb.PermissionException):
        return Message(error=f"only the log can be read: {text}", kind="refused")
    if isinstance(error, duckdb.CatalogException) and "Table with name" in text:
        there = ", ".join([f'"{name}"' for name in LogFolder(Path(request.log)).models()])
        return Message(error=f"{text.splitlines()[0]}; there is {ALL_MODELS}, {there}")
    return Message(error=_PINNED.sub("a file of the log", text), kind="failed")


def _too_large(request: Request) -> Message:
    return Message(error=f"the query needs more than {request.memory >> 20} MiB", kind="memory")


def _say(message: Message) -> None:
    sys.stderr.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stderr.buffer.flush()


if __name__ == "__main__":
    main()
