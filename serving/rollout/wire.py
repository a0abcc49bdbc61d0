"""What a worker counts for a rollout, and how it reaches control.

A worker closes a `Batch` several times a second and keeps it until control says that it is in the
book. In the store stands, per worker, one `Unfolded`: everything that control has not confirmed.
It is written whole each time, so a store that lost it gets it again, and control, which knows the
last number it has folded of each incarnation, folds each batch exactly once.

A key is told by its cell: 24 bits of a hash that is not the one it was assigned by
(`cell_of`). A worker tells of a cell once per signal; control, which hears of all workers, counts
the first. Requests without a key (each drawn by itself) are counted as they are.
"""

import hashlib
from typing import Final

import msgspec

__all__ = [
    "CELLS",
    "UNFOLDED_BYTES",
    "Arms",
    "Batch",
    "Cells",
    "Share",
    "Unfolded",
    "cell_of",
    "decode_unfolded",
    "encode_unfolded",
    "evidence_key",
    "folded_key",
    "scramble_of",
]

CELLS: Final = 1 << 24
_LINE: Final = 1 << 64

UNFOLDED_BYTES: Final = 8 << 20
"""Most that one worker has in the store: hours of 1,000 new keys a second. Of more it tells the
oldest first; what is larger is refused."""


def cell_of(place: int, scramble: int) -> int:
    """The cell of a key, from its place on the line and the rollout's own odd number.

    Multiplying by an odd number modulo 2⁶⁴ is a bijection; its top 24 bits depend on every bit of
    the place, those that decide the arm do not tell them.
    """
    return place * scramble % _LINE >> 40


def scramble_of(rollout: str) -> int:
    """A rollout's own odd number: the same in every worker, below 2⁶⁴."""
    return int.from_bytes(hashlib.blake2b(rollout.encode(), digest_size=8).digest(), "big") | 1


# Trees without cycles, by the ten thousand after control was away: with `gc=False` six MB are read
# in 0.15 s instead of 0.8 (2-vCPU VM).


class Cells(msgspec.Struct, array_like=True, gc=False):
    """Keys by cell, each four bytes, little endian; and how many requests had no key."""

    cells: bytes = b""
    unkeyed: int = 0


class Arms(msgspec.Struct, array_like=True, gc=False):
    """The same of both versions."""

    canary: Cells
    production: Cells


class Share(msgspec.Struct, array_like=True, gc=False):
    """What happened while the canary had one probability."""

    rho: float
    """Probability of the canary, above 0 and below 1."""

    requests: list[int]
    """Requests that count: of the canary, of production."""

    exposed: Arms
    """Keys that met a version for the first time in this worker."""

    events: dict[str, Arms]
    """By signal: `rule`, or `rule:bin` of a rule with bins or several bounds. A key is told once
    per rule with bins (its first bin), and once per signal otherwise."""

    excluded: dict[str, list[int]]
    """By reason: requests that do not count, of the canary and of production."""


class Batch(msgspec.Struct, array_like=True, gc=False):
    """What was counted since the one before."""

    number: int
    """From 1, without gaps, in one incarnation."""

    at: float
    """When it was closed, seconds since 1970."""

    step: int
    shares: list[Share]
    shadow: dict[str, Cells]
    """By outcome of a copy: `agree`, `differ`, `failed` (the shadow alone), `production_failed`
    (production alone)."""

    seconds: list[list[float]]
    """Sampled durations of answered requests, of the canary and of production, for `threshold`
    rules and for showing; at most a few hundred."""

    tripped: str = ""
    """The hard stop that this worker has hit, in words."""

    copies: int = 0
    """Shadow copies compared, every one of them; `shadow` tells of a key once."""

    lost: dict[str, int] = {}
    """By reason: requests that this worker knows it could not tell of."""


class Unfolded(msgspec.Struct, array_like=True):
    """Everything of one worker that control has not confirmed."""

    worker: str
    incarnation: str
    """Of the process: no other has it."""

    batches: list[Batch]
    ended: bool = False
    """Nothing will follow: the worker has drained, or somebody speaks for a dead one."""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Unfolded)


def encode_unfolded(unfolded: Unfolded) -> bytes:
    """As it stands in the store."""
    return _ENCODER.encode(unfolded)


def decode_unfolded(data: bytes) -> Unfolded:
    """Read what `encode_unfolded` wrote. Raises ValueError for anything else."""
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"this is no evidence of this release: {error}") from error


def evidence_key(rollout: str) -> str:
    """The hash in the store: incarnation to `Unfolded`."""
    return f"sluice:evidence:{rollout}"


def folded_key(rollout: str) -> str:
    """The hash in the store: incarnation to the number of its last batch in the book."""
    return f"sluice:folded:{rollout}"
