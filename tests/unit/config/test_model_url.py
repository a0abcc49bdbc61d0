"""Addresses of versions at other servers."""

import pytest

from serving.config.model_url import parse_model_url


def test_an_address_has_its_parts() -> None:
    """Default ports, IPv6, a prefix before /v2."""
    url = parse_model_url("http://triton:9000/v2/models/resnet/versions/3")
    assert (url.secure, url.authority, url.path, url.server_path) == (
        False,
        "triton:9000",
        "/v2/models/resnet/versions/3",
        "/v2",
    )
    assert parse_model_url("https://h/v2/models/m").authority == "h:443"
    assert parse_model_url("http://[::1]/v2/models/m").authority == "[::1]:80"
    assert parse_model_url("http://h/team/a/v2/models/m").server_path == "/team/a/v2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("triton:9000/v2/models/m", "no http:// or https://"),
        ("ftp://h/v2/models/m", "no http:// or https://"),
        ("http:///v2/models/m", "no http:// or https://"),
        ("http://h:port/v2/models/m", "is no URL"),
        ("http://h:99999/v2/models/m", "is no URL"),
        ("http://h", "does not end in"),
        ("http://h/v2/models/", "does not end in"),
        ("http://h/v2/models/m/infer", "does not end in"),
        ("http://h/v2/models/m/versions/", "does not end in"),
        ("http://h/v2/models/m?x=1", "does not end in"),
        ("http://h/v2/models/a b", "does not end in"),
        ("http://user:secret@h/v2/models/m", "must not hold a password"),
    ],
)
def test_others_are_refused_with_the_reason(text: str, words: str) -> None:
    """Before anybody connects."""
    with pytest.raises(ValueError, match=words) as caught:
        parse_model_url(text)
    assert "secret" not in str(caught.value)
