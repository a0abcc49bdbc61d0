"""Snapshots as bytes: what control publishes and what workers keep on disk.

JSON, because a person looks at it when something is wrong. Durations travel as seconds and
sizes as bytes, plain numbers, so that nothing is lost to the rounding of `50ms`.
"""

from typing import Any

import msgspec

from serving.config.snapshot import Snapshot
from serving.config.units import ByteSize, Seconds
from serving.errors import InvalidConfig

__all__ = ["dec_hook", "decode_snapshot", "enc_hook", "encode_snapshot"]


def enc_hook(value: object) -> float | int:
    """Encode a `Seconds` as its seconds and a `ByteSize` as its bytes, for msgspec."""
    match value:
        case Seconds():
            return float(value)
        case ByteSize():
            return int(value)
    raise NotImplementedError(f"{type(value).__name__} is no part of a configuration")


def dec_hook(kind: type, value: object) -> Any:
    """Decode what `enc_hook` wrote, or the text a person writes (`50ms`, `16MiB`)."""
    if kind is Seconds:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return Seconds(value) if number else Seconds.parse(value)  # type: ignore[arg-type]
    if kind is ByteSize:
        return ByteSize(value) if type(value) is int else ByteSize.parse(value)
    raise NotImplementedError(f"{kind.__name__} is no part of a configuration")


_ENCODER = msgspec.json.Encoder(enc_hook=enc_hook, order="deterministic")
_DECODER = msgspec.json.Decoder(Snapshot, dec_hook=dec_hook)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Write a snapshot as JSON, byte for byte the same for equal snapshots."""
    return _ENCODER.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """Read what `encode_snapshot` wrote. Raises InvalidConfig for anything else."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"not a snapshot of this release: {error}") from error
