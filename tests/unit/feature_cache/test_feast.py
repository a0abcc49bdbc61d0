"""Feast's bytes, as Feast 0.67.0 wrote them; no Feast is installed here."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_cache.codec import Corrupt
from feature_cache.feast import (
    FeastKeys,
    collisions,
    decode_value,
    event_time_ms,
    field_name,
    floats,
    murmur3_32,
    scalar,
    timestamp_field,
)
from feature_cache.keys import InvalidEntity

KEY_A = "0100000002000000090000006472697665725f69640400000008000000e90300000000000064656d6f"
KEY_B = "0100000002000000090000006472697665725f69640400000008000000feffffffffffffff64656d6f"
KEY_C = (
    "020000000200000007000000636f756e74727902000000090000006472697665725f6964020000000200000046"
    "520400000008000000e90300000000000064656d6f"
)
TIME = "08a5ebdcca061088eadcc302"


@pytest.mark.parametrize(
    ("entity", "values", "expected"),
    [
        ({"driver_id": "int64"}, [1001], KEY_A),
        ({"driver_id": "int64"}, [-2], KEY_B),
        ({"driver_id": "int64", "country": "string"}, ["FR", 1001], KEY_C),
    ],
)
def test_keys(entity: Any, values: list[Any], expected: str) -> None:
    """Names sorted, each value with its type, the project behind."""
    keys = FeastKeys("demo", entity)

    assert keys.key(values).hex() == expected
    assert keys.keys([[value] for value in values]) == [bytes.fromhex(expected)]


def test_the_same_number_of_another_type_is_another_key() -> None:
    """A registry that says INT32 means other bytes than one that says INT64."""
    narrow = FeastKeys("demo", {"driver_id": "int32"}).key([1001])

    assert narrow.hex() == KEY_A.replace(
        "0400000008000000e903000000000000", "0300000004000000e9030000"
    )


@pytest.mark.parametrize(
    ("kind", "value"), [("int64", "1"), ("int64", True), ("int32", 1 << 31), ("string", 1)]
)
def test_a_key_of_another_type_is_refused(kind: Any, value: Any) -> None:
    """Naming the key."""
    with pytest.raises(InvalidEntity, match="entity key 'id'"):
        FeastKeys("p", {"id": kind}).key([value])


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ("conv", "9173c7dc"), ("trips", "eb342a65"), ("name", "4a5d62a3"), ("ok", "ccc8de25"),
        ("emb", "9d860c13"), ("d", "d92ca614"), ("last", "108d94f3"), ("i32", "3a317744"),
    ],
)  # fmt: skip
def test_field_names(feature: str, expected: str) -> None:
    """Four bytes of MurmurHash3 for each feature."""
    assert field_name("stats", feature).hex() == expected


def test_the_time_has_a_name_of_its_own() -> None:
    """In plain text."""
    assert timestamp_field("stats").hex() == "5f74733a7374617473"
    assert field_name("geo", "conv").hex() == "878d009f"


@pytest.mark.parametrize(
    ("data", "seed", "expected"),
    [
        (b"", 0, 0), (b"", 1, 0x514E28B7), (b"", 0xFFFFFFFF, 0x81F16F39),
        (b"\xff\xff\xff\xff", 0, 0x76293B50), (b"!Ce\x87", 0, 0xF55B516B),
        (b"!Ce", 0, 0x7E4A8634), (b"!C", 0, 0xA0F7B07A), (b"!", 0, 0x72661CF4),
        (b"\0\0\0\0", 0, 0x2362F9DE),
    ],
)  # fmt: skip
def test_murmur3(data: bytes, seed: int, expected: int) -> None:
    """The vectors that implementations agree on, of every length modulo four."""
    assert murmur3_32(data, seed) == expected


def test_two_features_under_one_name_are_found() -> None:
    """A pair that collides; Feast writes one over the other."""
    first, second = ("user_stats", "avg_item_8049_1h"), ("user_stats", "std_item_2738_24h")

    assert field_name(*first).hex() == field_name(*second).hex() == "e881c85d"
    assert collisions([first, ("geo", "conv"), second]) == [(first, second)]


@pytest.mark.parametrize(
    ("raw", "kind", "value"),
    [
        ("350000803e", "float", 0.25),
        ("202a", "int64", 42),
        ("2000", "int64", 0),
        ("120668c3a96c6c6f", "string", "héllo"),
        ("1200", "string", ""),
        ("3801", "bool", True),
        ("3800", "bool", False),
        ("82010e0a0c0000803f00000040000060c0", "float_list", [1.0, 2.0, -3.5]),
        ("820100", "float_list", []),
        ("299a9999999999b93f", "double", 0.1),
        ("29000000000000f8bf", "double", -1.5),
        ("40a5ebdcca06", "unix_timestamp", 1767323045),
        ("1807", "int32", 7),
        ("18f9ffffffffffffffff01", "int32", -7),
        ("3500001841", "float", 9.5),
        ("0a0200ff", "bytes", b"\x00\xff"),
        ("620a0a016112000a03c3a978".replace("12000a", "0a000a"), "string_list", ["a", "", "éx"]),
        ("72050a03010203", "int64_list", [1, 2, 3]),
        ("7206080108020803", "int64_list", [1, 2, 3]),
        ("", "null", None),
    ],
)  # fmt: skip
def test_values(raw: str, kind: str, value: Any) -> None:
    """Every kind, zero and empty told from null, lists packed and not."""
    assert decode_value(bytes.fromhex(raw)) == (kind, value)


@pytest.mark.parametrize(
    "raw",
    ["35000080", "20", "20ff", "20ffffffffffffffffffff01", "1205ab", "1201ff", "3802", "5000",
     "202a00", "2a2a", "1880808080808080808001", "82010e0a0c0000", "620412020a00", "00", "ff"],
)  # fmt: skip
def test_what_is_no_value_is_corrupt(raw: str) -> None:
    """Cut off, another wire type, an unknown kind, bytes left over, no UTF-8, out of range."""
    with pytest.raises(Corrupt):
        decode_value(bytes.fromhex(raw))


@pytest.mark.parametrize(
    ("raw", "declared", "value"),
    [
        ("350000803e", "float32", 0.25), ("299a9999999999b93f", "float64", 0.1),
        ("1807", "int8", 7), ("18f9ffffffffffffffff01", "int16", -7), ("1807", "int32", 7),
        ("202a", "int64", 42), ("40a5ebdcca06", "int64", 1767323045), ("3801", "bool", True),
        ("120668c3a96c6c6f", "string", "héllo".encode()),
    ],
)  # fmt: skip
def test_scalars_are_read_as_the_view_declares(raw: str, declared: str, value: Any) -> None:
    """Strings as the bytes that models are given."""
    assert scalar(bytes.fromhex(raw), declared) == value


@pytest.mark.parametrize(
    ("raw", "declared", "words"),
    [("202a", "int32", "it is int64 there, and int32 here"),
     ("350000803e", "float64", "it is float there, and float64 here"),
     ("820100", "float32", "it is float_list there"), ("18ac02", "int8", "300 is no int8")],
)  # fmt: skip
def test_a_scalar_of_another_kind_is_not_guessed(raw: str, declared: str, words: str) -> None:
    """Both kinds are named."""
    with pytest.raises(Corrupt, match=words):
        scalar(bytes.fromhex(raw), declared)


def test_the_short_way_for_floats_takes_nothing_else() -> None:
    """A null among them would shift all that follow."""
    one, two = bytes.fromhex("350000803e"), bytes.fromhex("3500001841")

    fast = floats([one, two])

    assert fast is not None
    assert fast.tolist() == [0.25, 9.5]
    assert fast.flags.writeable
    for other in (None, b"", bytes.fromhex("202a"), bytes.fromhex("1203616263")):
        assert floats([one, other, two]) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(TIME, 1767323045678), ("", 0), ("0801", 1000), ("1080897a", 2), ("10c0843d0801", 1001)],
)
def test_event_times(raw: str, expected: int) -> None:
    """Seconds and nanoseconds, in any order, left out when they are zero."""
    assert event_time_ms(bytes.fromhex(raw)) == expected


@pytest.mark.parametrize("raw", ["08", "1801", "0a00", "08ffffffffffffffffff01", "1080a8d6b907"])
def test_what_is_no_time_is_corrupt(raw: str) -> None:
    """Cut off, another field, before 1970, a billion nanoseconds."""
    with pytest.raises(Corrupt):
        event_time_ms(bytes.fromhex(raw))


@given(raw=st.binary(max_size=40))
def test_any_bytes_are_a_value_or_corrupt(raw: bytes) -> None:
    """Nothing else is ever raised."""
    for read in (
        decode_value,
        event_time_ms,
        *(lambda raw, kind=kind: scalar(raw, kind) for kind in ("float32", "int8", "string")),
    ):
        try:
            read(raw)
        except Corrupt:
            continue
        except KeyError:
            pytest.fail(f"{read} {raw!r}")


def varint(value: int) -> bytes:
    """Protobuf's varint of a signed 64-bit number."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@given(
    number=st.integers(-(1 << 63), (1 << 63) - 1),
    text=st.text(),
    real=st.floats(),
    items=st.lists(st.integers(-(1 << 63), (1 << 63) - 1)),
)
def test_what_an_encoder_writes_is_read_back(
    number: int, text: str, real: float, items: list[int]
) -> None:
    """Written here by the wire format's rules, and nothing of ours."""
    utf8 = text.encode()
    packed = b"".join(map(varint, items))
    inner = b"\x0a" + varint(len(packed)) + packed

    assert decode_value(b"\x20" + varint(number)) == ("int64", number)
    assert decode_value(b"\x12" + varint(len(utf8)) + utf8) == ("string", text)
    kind, value = decode_value(b"\x29" + struct.pack("<d", real))
    assert kind == "double"
    assert np.array_equal([value], [real], equal_nan=True)
    assert decode_value(b"\x72" + varint(len(inner)) + inner) == ("int64_list", items)


@given(
    first=st.tuples(st.text(), st.integers(-(1 << 63), (1 << 63) - 1)),
    second=st.tuples(st.text(), st.integers(-(1 << 63), (1 << 63) - 1)),
)
def test_different_entities_have_different_keys(first: Any, second: Any) -> None:
    """Within a project; lengths keep values apart."""
    keys = FeastKeys("demo", {"name": "string", "number": "int64"})

    assert (keys.key(first) == keys.key(second)) == (first == second)
