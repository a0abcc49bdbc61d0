"""What the generator processes are told and tell, in msgpack, each message after its length.

To a process: `Orders`, then the start as a bare number of `time.monotonic()`, then the end of its
input, which means stop. From it: `Ready` or `Refused`, `Progress` now and then, `Report` last.
"""

import struct
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.loadtest.bodies import KindSpec
from serving.loadtest.target import Target, Tls

__all__ = [
    "LENGTH",
    "Column",
    "Message",
    "Orders",
    "Packed",
    "Progress",
    "Ready",
    "Refused",
    "Report",
    "decode",
    "frame",
    "pack",
    "unpack",
]

T = TypeVar("T")
LENGTH: Final = struct.Struct("<Q")


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """An array of one dimension, its dtype as numpy writes it."""

    dtype: str
    data: bytes


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """`plan.KeyColumn`."""

    name: str
    datatype: str
    values: Packed
    table: list[bytes] = []


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """All a generator process needs to know."""

    target: Target
    encoding: str
    tls: Tls | None
    token: str
    headers: dict[str, str]
    connections: int
    deadline: float | None
    timeout: float
    kinds: list[KindSpec]
    columns: list[list[Column]]
    times: Packed
    kind: Packed
    rows: Packed
    offset: Packed


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All connections are open."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot begin: nobody is there, or a request cannot be made."""

    words: str
    unreachable: bool


class Progress(msgspec.Struct, frozen=True, tag="progress", kw_only=True):
    """How far it is; counts since the start. `latencies` in seconds since the last progress."""

    sent: int
    ended: int
    ok: int
    unsent: int
    latencies: Packed


class Report(msgspec.Struct, frozen=True, tag="report", kw_only=True):
    """`outcomes.Outcomes` of the first `count` requests: those that were due when it ended."""

    count: int
    arrays: dict[str, Packed]
    texts: list[str]
    problems: dict[str, str]
    cpu_share: float
    most_in_flight: int
    interrupted: bool


Message = Ready | Refused | Progress | Report


def pack(array: NDArray[Any]) -> Packed:
    """An array as bytes."""
    return Packed(array.dtype.str, array.tobytes())


def unpack(packed: Packed) -> NDArray[Any]:
    """The array again, read-only."""
    return np.frombuffer(packed.data, packed.dtype)


def frame(message: object) -> bytes:
    """A message as it travels."""
    body = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(body)) + body


def decode(body: bytes, kind: type[T]) -> T:
    """A message's body."""
    return msgspec.msgpack.decode(body, type=kind)
