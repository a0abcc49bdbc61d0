"""Bodies in gzip or deflate, inflated under caps on size and ratio.

`deflate` means the zlib format (RFC 1950), as HTTP defines it (RFC 9110, 8.4.1.2).
"""

import zlib
from collections.abc import Iterator
from typing import Final, Literal

from serving.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding

__all__ = ["choose_encoding", "deflate", "inflate"]

_WINDOW: Final = {
    "gzip": zlib.MAX_WBITS | 16,
    "x-gzip": zlib.MAX_WBITS | 16,
    "deflate": zlib.MAX_WBITS,
}
_PIECE: Final = 64 * 1024
_INFLATED_PIECE: Final = 256 * 1024
# Below this size a high ratio harms nobody: a blank image compresses a thousandfold.
_RATIO_FREE_BYTES: Final = 64 * 1024
# A gzip body may be several members; each costs a fresh decompressor however small it is.
_MAX_MEMBERS: Final = 1024
# The fastest level: an answer of floats shrinks little more at the default level 6.
_LEVEL: Final = 1


def inflate(body: bytes, encoding: str, max_bytes: int, max_ratio: int) -> bytes:
    """Decompress a request body.

    At most `max_bytes`, and past 64 KiB at most `max_ratio` times the compressed size, is
    kept; a body that would give more is dropped one piece (256 KiB) past the cap.

    Raises:
        UnsupportedEncoding: not gzip, deflate or identity.
        BodyTooLarge: over one of the caps.
        InvalidRequest: not in the format it claims, truncated, or followed by something else.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOW:
        raise UnsupportedEncoding(
            f"Content-Encoding '{encoding[:32]}' is not served; send gzip, deflate or identity"
        )
    cap = min(max_bytes, max(len(body) * max_ratio, _RATIO_FREE_BYTES))
    size = 0
    pieces: list[bytes] = []
    try:
        for piece in _pieces(body, encoding):
            size += len(piece)
            if size > cap:
                raise BodyTooLarge(_over(cap, max_bytes, max_ratio))
            pieces.append(piece)
    except zlib.error:
        raise InvalidRequest(f"the body is not valid {encoding}") from None
    return b"".join(pieces)


def _pieces(body: bytes, encoding: str) -> Iterator[bytes]:
    """Inflate bit by bit, so that the caller can stop before a bomb has gone off."""
    window = _WINDOW[encoding]
    stream = zlib.decompressobj(window)
    members = 1
    view = memoryview(body)
    # zlib hands back what it did not use as a copy: small pieces keep these copies small.
    for start in range(0, len(body), _PIECE):
        rest: bytes | memoryview = view[start : start + _PIECE]
        while rest:
            if stream.eof:
                members += 1
                if window == zlib.MAX_WBITS or members > _MAX_MEMBERS:
                    raise InvalidRequest(f"the body goes on after its {encoding} data")
                stream = zlib.decompressobj(window)
            yield stream.decompress(rest, _INFLATED_PIECE)
            rest = stream.unused_data if stream.eof else stream.unconsumed_tail
    if not stream.eof:
        raise InvalidRequest(f"the body ends inside its {encoding} data")


def _over(cap: int, max_bytes: int, max_ratio: int) -> str:
    if cap == max_bytes:
        return f"the inflated body is larger than {max_bytes} bytes (limits.max_body)"
    return f"the body inflates to more than {max_ratio} times its size (limits.max_inflate_ratio)"


def deflate(body: bytes, encoding: str) -> bytes:
    """Compress an answer as `gzip` or `deflate`, the two words `choose_encoding` gives.

    Raises:
        UnsupportedEncoding: any other word.
    """
    if encoding not in _WINDOW:
        raise UnsupportedEncoding(f"cannot encode an answer as '{encoding[:32]}'")
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[encoding])
    return stream.compress(body) + stream.flush()


def choose_encoding(accept_encoding: str) -> Literal["gzip", "deflate"] | None:
    """Pick what to compress an answer with from an Accept-Encoding header, or None.

    The higher q-value wins, gzip on a tie; `*` speaks for what is not named. None also when
    the client likes `identity` better, or states nothing usable.
    """
    weights: dict[str, float] = {}
    for item in accept_encoding.lower().split(","):
        coding, _, parameters = item.partition(";")
        weight = _weight(parameters)
        if weight is not None and (coding := coding.strip()):
            weights["gzip" if coding == "x-gzip" else coding] = weight
    rest = weights.get("*", 0.0)
    gzip, zlib_ = weights.get("gzip", rest), weights.get("deflate", rest)
    best = max(gzip, zlib_)
    if best <= 0.0 or weights.get("identity", 0.0) > best:
        return None
    return "gzip" if gzip == best else "deflate"


def _weight(parameters: str) -> float | None:
    """The q of one item: 1 if absent, None if malformed (the item is then ignored)."""
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return None
            return weight if 0.0 <= weight <= 1.0 else None
    return 1.0
