"""A node's numbers as bytes, for control on another node, which reads only its own disk."""

import msgspec

from serving.metrics import Samples
from serving.metrics_folder import fitting

__all__ = ["decode", "encode"]

_DECODER = msgspec.msgpack.Decoder(list[tuple[str, tuple[str, ...], list[float]]])


def encode(samples: Samples) -> bytes:
    """Write them, as MessagePack: a hundred bytes for each histogram."""
    return msgspec.msgpack.encode(
        [(name, labels, slots) for (name, labels), slots in samples.items()]
    )


def decode(content: bytes) -> Samples:
    """Read what `encode` wrote; without what this release does not know, empty if it is none."""
    try:
        listed = _DECODER.decode(content)
    except msgspec.MsgspecError:
        return {}
    return fitting({(name, labels): slots for name, labels, slots in listed})
