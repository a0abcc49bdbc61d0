"""A segment: an Arrow IPC stream that grows, and can be read whatever happened to its writer.

Every batch is one message, written at once, and carries a CRC-32 in its metadata (key `crc32`,
value `crc:` and eight hex digits), of the schema's message and then of its own with those digits
as zeros. So a reader knows a message that is whole from one that is not, and finds the next
after a damaged stretch.
Any Arrow library reads a segment as the plain stream it is.

Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format .
"""

import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa

__all__ = ["Contents", "Damage", "SegmentFollower", "SegmentWriter", "read_segment"]

_MARK: Final = b"crc:"
_BLANK: Final = b"crc:00000000"
_CONTINUATION: Final = b"\xff\xff\xff\xff"
_END: Final = _CONTINUATION + b"\0\0\0\0"
_ALIGNMENT: Final = 8


class Damage(msgspec.Struct, frozen=True):
    """Bytes of a segment that could not be read, and why."""

    offset: int
    length: int
    reason: str


class Contents(msgspec.Struct):
    """What a segment holds: batches that are whole, and what lies between them."""

    schema: pa.Schema | None
    batches: list[pa.RecordBatch]
    damages: list[Damage]
    sealed: bool
    """It ends with the mark of the stream's end."""

    @property
    def rows(self) -> int:
        """Rows that can be read."""
        return sum(batch.num_rows for batch in self.batches)


class SegmentWriter:
    """Appends batches to a file; after an error the file is as it was before.

    Raises (all methods):
        OSError: the disk is full, or worse. Nothing of the batch is in the file then.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self.size = 0
        self.dirty = False
        """Something was written that `sync` has not put on the disk."""

        self._collected = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(self._collected, schema, options=options)
        # Arrow writes the schema together with the first batch.
        self._writer.write_batch(_empty(schema))
        head = self._taken()[: _length(schema)]
        self._seed = zlib.crc32(head)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            self._append(head)
        except OSError:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise

    def write(self, batch: pa.RecordBatch) -> int:
        """Append a batch; returns its bytes."""
        self._writer.write_batch(batch, custom_metadata={"crc32": _BLANK.decode()})
        message = self._taken()
        written = self._append(_stamped(message, self._seed))
        self.rows += batch.num_rows
        return written

    def sync(self) -> None:
        """Put what was written on the disk."""
        if self.dirty:
            os.fdatasync(self._file)
            self.dirty = False

    def close(self) -> None:
        """End the stream and put it on the disk. The file is closed whatever happens."""
        try:
            self._append(_END)
            self.sync()
        finally:
            os.close(self._file)

    def _taken(self) -> bytes:
        """What Arrow has written since, taken out of memory."""
        taken = self._collected.getvalue()
        self._collected.seek(0)
        self._collected.truncate()
        return taken

    def _append(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self.size += len(data)
        self.dirty = True
        return len(data)


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, one.type) for one in schema], schema=schema)


def _length(schema: pa.Schema) -> int:
    """Bytes of the schema's message."""
    return int(schema.serialize().size)


def _stamped(message: bytes, seed: int) -> bytes:
    at = message.index(_BLANK) + len(_MARK)
    return b"%s%08x%s" % (message[:at], zlib.crc32(message, seed), message[at + 8 :])


def read_segment(path: Path) -> Contents:
    """Read every batch that is whole.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    data = path.read_bytes()
    found = Contents(None, [], [], sealed=False)
    offset = 0
    first = _message(data, 0)
    try:
        found.schema = pa.ipc.read_schema(first[0]) if first is not None else None
    except (pa.ArrowException, OSError, ValueError):
        found.schema = None
    if first is None or found.schema is None:
        if data:
            found.damages.append(Damage(0, len(data), "the schema cannot be read"))
        return found
    offset = first[1]
    for start, stop, message in _messages(data, offset, zlib.crc32(data[:offset])):
        if start > offset:
            found.damages.append(Damage(offset, start - offset, "damaged or not written whole"))
        if message is None:
            found.sealed = True
        else:
            try:
                found.batches.append(pa.ipc.read_record_batch(message, found.schema))
            except (pa.ArrowException, OSError) as error:
                found.damages.append(Damage(start, stop - start, str(error)))
        offset = stop
    if offset < len(data):
        found.damages.append(Damage(offset, len(data) - offset, "damaged or not written whole"))
    return found


class SegmentFollower:
    """Reads a segment as it grows: each batch once, whatever becomes of its name.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._schema: pa.Schema | None = None
        self._seed = 0
        self._offset = 0
        self.ended = False
        """Nothing will follow."""

    def more(self) -> list[pa.RecordBatch]:
        """Batches that became whole since the last time."""
        size = os.fstat(self._file).st_size
        data = os.pread(self._file, size - self._offset, self._offset) if not self.ended else b""
        at = 0
        if self._schema is None:
            first = _message(data, 0)
            if first is None:
                return []
            self._schema, at = pa.ipc.read_schema(first[0]), first[1]
            self._seed = zlib.crc32(data[:at])
        found = []
        done = at
        for _, stop, message in _messages(data, at, self._seed):
            done = stop
            if message is None:
                self.ended = True
            else:
                found.append(pa.ipc.read_record_batch(message, self._schema))
        self._offset += done
        return found

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)


def _messages(
    data: bytes, offset: int, seed: int
) -> Iterator[tuple[int, int, "pa.ipc.Message | None"]]:
    """Start, end and message of each that is whole; None for the mark of the end.

    The mark has no checksum: after a stretch that cannot be read, the same bytes may be data.
    """
    hole = False
    while offset < len(data):
        if not hole and data[offset : offset + 8] == _END:
            yield offset, offset + 8, None
            offset += 8
            continue
        found = _message(data, offset)
        hole = found is None or not _intact(data, offset, found[1], seed)
        if found is not None and not hole:
            yield offset, found[1], found[0]
            offset = found[1]
            continue
        offset = _next_candidate(data, offset + 1)


def _next_candidate(data: bytes, offset: int) -> int:
    """Where the next message may begin: they are aligned to 8 bytes within the stream."""
    while True:
        at = data.find(_CONTINUATION, offset)
        if at < 0:
            return len(data)
        if at % _ALIGNMENT == 0:
            return at
        offset = at + 1


def _message(data: bytes, offset: int) -> "tuple[pa.ipc.Message, int] | None":
    """Parse the message at an offset; None if there is no whole one."""
    if data[offset : offset + 4] != _CONTINUATION:
        return None
    length = int.from_bytes(data[offset + 4 : offset + 8], "little", signed=True)
    if length <= 0 or offset + 8 + length > len(data):
        return None
    try:
        message = pa.ipc.read_message(pa.py_buffer(memoryview(data)[offset:]))
    except (pa.ArrowException, OSError, EOFError):
        return None
    body = message.body
    return message, offset + 8 + length + (body.size if body is not None else 0)


def _intact(data: bytes, start: int, stop: int, seed: int) -> bool:
    """Whether a message is what was written. Its metadata holds the mark once."""
    length = int.from_bytes(data[start + 4 : start + 8], "little", signed=True)
    at = data.find(_MARK, start, start + 8 + length)
    if at < 0 or stop > len(data):
        return False
    at += len(_MARK)
    stated = data[at : at + 8]
    message = memoryview(data)[start:stop]
    inside = at - start
    found = zlib.crc32(b"00000000", zlib.crc32(message[:inside], seed))
    return b"%08x" % zlib.crc32(message[inside + 8 :], found) == stated
