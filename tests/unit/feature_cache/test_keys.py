from fnmatch import fnmatchcase
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_cache.keys import EntityValue, InvalidEntity, KeySpace

NASTY = ["", "|", "{}", "a}:b", "*", "?[x]", "%7C", "~", "=", ",", "\0", "\n", "é", "#", "-1", "+"]


def test_a_number_is_keyed_by_its_digits() -> None:
    """The key is readable, and says tenant, entity and view."""
    assert KeySpace("acme", "profile", {"person_id": "int64"}).key([42]) == (
        b"fc:{acme|person_id=42}:profile"
    )


def test_several_keys_stand_in_the_order_of_their_names() -> None:
    """However the view lists them."""
    space = KeySpace("t", "v", {"user": "int64", "country": "string"})

    assert space.names == ("country", "user")
    assert space.key(["FR", 7]) == b"fc:{t|country~FR,user=7}:v"


@pytest.mark.parametrize("value", NASTY)
def test_no_text_can_pass_for_a_separator(value: str) -> None:
    """Separators, glob characters, NUL and others are escaped, and can be told again."""
    key = KeySpace("t", "v", {"name": "string"}).key([value])

    assert key.count(b"|") == 1
    assert key.count(b"{") == key.count(b"}") == 1
    assert not set(key[:-3]) & set(b"*?[\\\0\n ,")
    escaped = key.partition(b"~")[2].removesuffix(b"}:v")
    assert unquote_to_bytes(escaped) == value.encode()


text = st.one_of(st.sampled_from(NASTY), st.text(max_size=6), st.binary(max_size=6))
numbers = st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "a|", "a}", "b"]),
            st.sampled_from(["v", "v2", "v-v"]),
            st.sampled_from(["string", "int64"]),
            text,
            numbers,
        ),
        min_size=2,
        max_size=2,
    )
)
def test_different_things_have_different_keys(
    things: list[tuple[str, str, str, str | bytes, int]],
) -> None:
    """Tenant, view, the entity's type and its value: each makes a key of its own."""
    meant, keys = [], []
    for tenant, view, kind, words, number in things:
        value: EntityValue = words if kind == "string" else number
        plain = words.encode("utf-8", "surrogateescape") if isinstance(words, str) else words
        meant.append((tenant, view, kind, plain if kind == "string" else number))
        keys.append(KeySpace(tenant, view, {"id": kind}).key([value]))  # type: ignore[dict-item]

    assert (keys[0] == keys[1]) == (meant[0] == meant[1])


@given(text, text, text, text)
def test_two_keys_never_run_into_each_other(
    a: str | bytes, b: str | bytes, c: str | bytes, d: str | bytes
) -> None:
    """What ends one value cannot begin the next."""
    space = KeySpace("t", "v", {"x": "string", "y": "string"})

    def plain(value: str | bytes) -> bytes:
        return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")

    same = (plain(a), plain(b)) == (plain(c), plain(d))
    assert (space.key([a, b]) == space.key([c, d])) == same


def test_a_value_of_a_megabyte_has_a_short_key_of_its_own() -> None:
    """Long values are keyed by their digest."""
    space = KeySpace("t", "v", {"name": "string"})
    one, other = space.key(["x" * (1 << 20)]), space.key(["x" * ((1 << 20) - 1) + "y"])

    assert one != other
    assert len(one) < 100


def test_a_short_value_cannot_pass_for_the_digest_of_a_long_one() -> None:
    """The mark of a digest is escaped in ordinary values."""
    space = KeySpace("t", "v", {"name": "string"})
    long = space.key(["x" * 1000])
    digest = long.partition(b"~")[2].removesuffix(b"}:v")

    assert space.key([digest]) != long


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("int64", 2**63, "out of its range"),
        ("int32", 2**31, "out of its range"),
        ("int64", "7", "not str"),
        ("int64", True, "not bool"),
        ("string", 7, "not int"),
    ],
)
def test_a_value_the_view_cannot_have_is_named(kind: str, value: EntityValue, words: str) -> None:
    """One at a time and in columns alike."""
    space = KeySpace("t", "v", {"person": kind})  # type: ignore[dict-item]

    with pytest.raises(InvalidEntity, match=words) as one:
        space.key([value])
    with pytest.raises(InvalidEntity, match=words):
        space.keys([[value]])

    assert "person" in str(one.value)


def test_int32_and_int64_of_one_number_are_one_entity() -> None:
    """The width is a bound, and no part of who somebody is."""
    narrow, wide = KeySpace("t", "v", {"id": "int32"}), KeySpace("t", "v", {"id": "int64"})

    assert narrow.key([42]) == wide.key([42])


def test_many_keys_are_the_single_ones() -> None:
    """`keys` is `key`, faster."""
    space = KeySpace("t", "v", {"a": "int64", "b": "string"})
    only = KeySpace("t", "v", {"a": "int64"})

    assert space.keys([[1, 2], ["x", "|"]]) == [space.key([1, "x"]), space.key([2, "|"])]
    assert only.keys([[1, -2]]) == [only.key([1]), only.key([-2])]


def test_a_pattern_finds_the_subject_and_matching_tells_the_others_apart() -> None:
    """A star crosses separators, so what is found is looked at again."""
    space = KeySpace("t", "v", {"country": "string", "person": "int64"})
    other = KeySpace("t", "v", {"country": "string", "person": "int64", "z": "int64"})
    pattern = space.pattern({"person": 42}).decode()
    key, longer = space.key(["FR", 42]), other.key(["FR", 42, 1])

    assert fnmatchcase(key.decode(), pattern)
    assert not fnmatchcase(space.key(["FR", 421]).decode(), pattern)
    assert space.matches(key, {"person": 42})
    assert space.matches(key, {"country": "FR"})
    assert not space.matches(key, {"person": 4})
    assert not space.matches(longer, {"person": 42})


@pytest.mark.parametrize("key", [b"", b"x", b"fc:{t|}:v", b"fc:{t|a}:v", b"sluice:snapshot"])
def test_what_is_no_row_matches_nobody(key: bytes) -> None:
    """The hash of field lists, other people's keys."""
    assert not KeySpace("t", "v", {"a": "int64"}).matches(key, {"a": 1})
