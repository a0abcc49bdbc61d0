import pytest

from feature_cache.address import Address
from feature_cache.errors import InvalidAddress


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", Address(hosts=(("localhost", 6379),))),
        (
            "redis://u:p%40ss@a:1,b:2/3",
            Address(hosts=(("a", 1), ("b", 2)), db=3, username="u", password="p@ss"),
        ),
        ("redis://:secret@[::1]:7000", Address(hosts=(("::1", 7000),), password="secret")),
        ("redis://[::1]", Address(hosts=(("::1", 6379),))),
        ("rediss://h?ca=/ca.pem", Address(hosts=(("h", 6379),), tls=True, ca="/ca.pem")),
        ("unix:///run/a%20b.sock?db=2", Address(path="/run/a b.sock", db=2)),
    ],
)
def test_addresses_are_read(url: str, expected: Address) -> None:
    """Every form."""
    assert Address.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://x",
        "redis://",
        "redis://h:x",
        "redis://h:0",
        "redis://h/x",
        "unix://",
        "redis://:9",
    ],
)
def test_an_unusable_address_is_refused(url: str) -> None:
    """With a sentence, not a stack trace from the socket."""
    with pytest.raises(InvalidAddress):
        Address.parse(url)


def test_a_password_is_never_shown() -> None:
    """Addresses end up in logs."""
    assert "hunter2" not in repr(Address.parse("redis://u:hunter2@h:1"))
    with pytest.raises(InvalidAddress) as refused:
        Address.parse("redis://u:hunter2@h:port")
    assert "hunter2" not in str(refused.value)
