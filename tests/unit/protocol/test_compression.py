"""Compressed bodies."""

import gzip
import random
import tracemalloc
import zlib

import pytest

from serving.errors import BodyTooLarge, InvalidRequest, UnsupportedEncoding
from serving.protocol import rest

MIB = 1 << 20
TEXT = bytes(random.Random(1).choices(b"abcdefgh", k=300_000))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("GZIP", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        (" gzip ", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:1000]) + gzip.compress(b"") + gzip.compress(TEXT[1000:])),
        ("deflate", zlib.compress(TEXT)),
        ("identity", TEXT),
        ("", TEXT),
    ],
)
def test_a_compressed_body_is_inflated(encoding: str, body: bytes) -> None:
    """A gzip body of one or several members, and deflate in the zlib format."""
    assert rest.inflate(body, encoding, MIB, 100) == TEXT


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "x" * 5000])
def test_another_encoding_is_refused(encoding: str) -> None:
    """The message names the three that are served."""
    with pytest.raises(UnsupportedEncoding, match="gzip, deflate or identity"):
        rest.inflate(b"", encoding, MIB, 100)


def raw_deflate(data: bytes) -> bytes:
    """The bare format that some servers wrongly called deflate."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", b"", "ends inside its gzip"),
        ("gzip", b"not gzip", "not valid gzip"),
        ("gzip", zlib.compress(TEXT), "not valid gzip"),
        ("gzip", gzip.compress(TEXT)[:-1], "ends inside its gzip"),
        ("gzip", gzip.compress(TEXT)[: len(TEXT) // 10], "ends inside its gzip"),
        ("gzip", gzip.compress(TEXT)[:-8] + bytes(8), "not valid gzip"),
        ("gzip", gzip.compress(TEXT) + b"garbage", "not valid gzip"),
        ("gzip", gzip.compress(TEXT) + bytes(512), "not valid gzip"),
        ("gzip", gzip.compress(b"") * 1025, "goes on"),
        ("deflate", b"not zlib", "not valid deflate"),
        ("deflate", gzip.compress(TEXT), "not valid deflate"),
        ("deflate", raw_deflate(TEXT), "not valid deflate"),
        ("deflate", zlib.compress(TEXT) + b"x", "goes on"),
        ("deflate", zlib.compress(TEXT)[:-4], "ends inside its deflate"),
    ],
)
def test_a_body_in_another_format_is_refused(encoding: str, body: bytes, said: str) -> None:
    """Wrong format, truncated, damaged, or with something behind it."""
    with pytest.raises(InvalidRequest, match=said):
        rest.inflate(body, encoding, MIB, 100)


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_the_size_cap_is_exact(compress: object) -> None:
    """A body of the cap passes, one byte more does not."""
    encoding = "gzip" if compress is gzip.compress else "deflate"
    body = compress(TEXT)  # type: ignore[operator]

    assert len(rest.inflate(body, encoding, len(TEXT), 100)) == len(TEXT)
    with pytest.raises(BodyTooLarge, match=r"limits\.max_body"):
        rest.inflate(body, encoding, len(TEXT) - 1, 100)


def test_the_ratio_cap_counts_from_64_kib() -> None:
    """A blank image compresses a thousandfold and hurts nobody; ten of them are a bomb."""
    small = gzip.compress(bytes(64 * 1024))
    large = gzip.compress(bytes(640 * 1024))

    assert len(rest.inflate(small, "gzip", MIB, 100)) == 64 * 1024
    with pytest.raises(BodyTooLarge, match=r"limits\.max_inflate_ratio"):
        rest.inflate(large, "gzip", MIB, 100)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_dropped_before_it_goes_off(encoding: str) -> None:
    """256 MiB of zeros in 256 KiB: no more than the cap and two pieces are ever held."""
    stream = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    bomb = b"".join(stream.compress(bytes(MIB)) for _ in range(256)) + stream.flush()
    cap = 2 * MIB

    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            rest.inflate(bomb, encoding, cap, 10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < cap + MIB


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_an_answer_is_compressed_and_comes_back(encoding: str) -> None:
    """What `deflate` writes, `inflate` and the standard library read."""
    body = rest.deflate(TEXT, encoding)

    assert len(body) < len(TEXT)
    assert rest.inflate(body, encoding, MIB, 100) == TEXT
    assert (gzip.decompress if encoding == "gzip" else zlib.decompress)(body) == TEXT


def test_an_answer_has_no_other_encoding() -> None:
    """A word that `choose_encoding` cannot give is refused."""
    with pytest.raises(UnsupportedEncoding):
        rest.deflate(b"", "br")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate, gzip", "gzip"),
        ("GZip", "gzip"),
        ("x-gzip", "gzip"),
        ("br", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip; q=0.5 , deflate; q=0.5", "gzip"),
        ("identity", None),
        ("identity;q=0", None),
        ("identity;q=0, gzip", "gzip"),
        ("identity;q=0, *", "gzip"),
        ("identity;q=1, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("gzip;q=nan", None),
        ("gzip;q=2", None),
        ("gzip;q=-1", None),
        ("gzip;q=x, deflate", "deflate"),
        (",,;q=1, ;", None),
    ],
)
def test_the_encoding_follows_the_clients_weights(accept: str, chosen: str | None) -> None:
    """Only gzip and deflate, by q-value; `*` stands for what is not named."""
    assert rest.choose_encoding(accept) == chosen
