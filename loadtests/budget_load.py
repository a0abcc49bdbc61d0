"""What is sent when instructions are counted, and what a worker needs to answer it.

A `Load` is one model; its cases ask for it in different words. The floor is asked for the same
rows, as `bench.py` asks it.
"""

from typing import Final

import msgspec

__all__ = ["WALL_SECONDS", "Case", "Load"]

WALL_SECONDS: Final = 1_700_000_000.0
"""The time it is, throughout."""


class Case(msgspec.Struct, kw_only=True):
    """One way of asking. `messages` are whole HTTP requests, or protobuf for `grpc`."""

    name: str
    protocol: str
    messages: list[bytes]


class Load(msgspec.Struct, kw_only=True):
    """One model: how a worker serves it, who asks, and what everybody must be answered.

    `expected[i]` are the probabilities, shape [2], of message i, and of `floor[i]`. `rows` and
    `field_lists` are the feature store's, as `budget_wire.StoreRows` takes them. `logged`: answers
    go to a prediction log.
    """

    name: str
    artifact: str
    config: str
    snapshot: bytes
    cases: list[Case]
    floor: list[bytes]
    expected: list[list[float]]
    rows: dict[bytes, bytes]
    field_lists: dict[bytes, dict[bytes, bytes]]
    logged: bool = False
