"""Heads that come again, paths that are remembered, and what errors add to an answer."""

import pytest

from serving.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Unauthenticated,
    UnsupportedEncoding,
)
from serving.worker.http.framing import HeadReader, WantedHeaders
from serving.worker.http.request import Pattern, Prepared, prepare
from serving.worker.http.responses import ResponseHeads, error_headers
from serving.worker.http.routes import Router

TARGET = "/v2/models/m/infer"
MAX_BODY = 1000


def prepared(headers: str = "", length: str = "3", target: str = TARGET) -> Prepared:
    """A head as a listener prepares it."""
    wanted = WantedHeaders.of(frozenset())
    reader = HeadReader(wanted, 8192)
    reader.take(head(headers, length, target), 0)
    return prepare(reader.finish(), Router(), wanted)


def head(headers: str = "", length: str = "3", target: str = TARGET) -> bytes:
    """The bytes of such a head."""
    line = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n"
    return f"{line}{headers}\r\n".encode()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (head() + b"abc", b"abc"),
        (head(length="12") + b"x" * 12, b"x" * 12),
        (head(length="0"), b""),
        (head(length="1000") + b"x" * 1000, b"x" * 1000),
        (head(length="1001") + b"x" * 1001, None),  # over the limit
        (head() + b"ab", None),  # not all of it
        (head() + b"abcG", None),  # something behind it
        (head(length="+3") + b"abc", None),
        (head(length="") + b"", None),
        (head(length="3 ") + b"abc", None),
        (head(length="0x3") + b"abc", None),
        (head(length="3\r\nContent-Length: 3") + b"abc", None),
        (head(length="³") + b"abc", None),
        (head(length="9" * 12), None),
        (head("X: y\r\n") + b"abc", None),
        (head().replace(b"Host: a", b"Host: b") + b"abc", None),
        (head()[:-2], None),
        (b"", None),
    ],
)
def test_a_head_that_comes_again_may_differ_in_its_length_only(
    data: bytes, body: bytes | None
) -> None:
    """Everything else goes through the parser, and so does anything odd about the digits."""
    pattern = Pattern.of(prepared())

    assert pattern is not None
    assert pattern.body_of(data, MAX_BODY) == body


@pytest.mark.parametrize(
    "headers",
    ["Connection: close\r\n", "Expect: 100-continue\r\n", f"X: {'y' * 4096}\r\n"],
)
def test_unusual_heads_are_not_remembered(headers: str) -> None:
    """What closes, waits or is large is parsed every time."""
    assert Pattern.of(prepared(headers)) is None


def test_a_router_remembers_only_so_much() -> None:
    """When it is full it starts anew; targets with a query or of great length never enter."""
    router = Router(capacity=3)
    for number in range(5):
        target = f"/v2/models/m{number}".encode()
        router.remember(target, router.resolve(target))
    query, long = b"/v2?x=1", b"/v2/models/" + b"m" * 250
    for target in (query, long):
        router.remember(target, router.resolve(target))

    assert set(router._known) == {b"/v2/models/m3", b"/v2/models/m4"}


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (b"/v2/models/m/versions/1/nothing", NotFound),
        (b"/V2", NotFound),
        (b"/v2/models/" + b"m" * 300, NotFound),
        (b"v2", InvalidRequest),
        (b"*", InvalidRequest),
        (b"http:///v2", InvalidRequest),
        (b"/v2/%c3%28", InvalidRequest),
        (b"/v2/models/a%7f", InvalidRequest),
    ],
)
def test_other_targets_lead_nowhere(target: bytes, kind: type[Exception]) -> None:
    """Unknown is 404; what is no path at all is 400."""
    with pytest.raises(kind):
        Router().resolve(target)


def test_names_are_decoded_once() -> None:
    """A doubly encoded name stays encoded once."""
    route = Router().resolve(b"/v2/models/caf%C3%A9%2525/versions/v%201/infer?x=y")

    assert (route.model, route.version) == ("café%25", "v 1")


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (Overloaded("", retry_after_seconds=0.02), b"retry-after: 1\r\n"),
        (Overloaded("", retry_after_seconds=7.1), b"retry-after: 8\r\n"),
        (MethodNotAllowed("", ("GET", "HEAD")), b"allow: GET, HEAD\r\n"),
        (UnsupportedEncoding(""), b"accept-encoding: gzip, deflate\r\n"),
        (Unauthenticated(""), b"www-authenticate: Bearer\r\n"),
        (InvalidRequest(""), b""),
        (RuntimeError(), b""),
    ],
)
def test_errors_bring_the_headers_http_asks_for(error: Exception, lines: bytes) -> None:
    """So that a client knows what to do without reading prose."""
    assert error_headers(error) == lines


def test_heads_carry_the_current_date() -> None:
    """One second later the date is another."""
    heads = ResponseHeads(0.0)
    first = heads.render(404, 2)
    heads.refresh(1.5)

    assert first == (
        b"HTTP/1.1 404 Not Found\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n"
    )
    assert b"00:00:01 GMT" in heads.render(404, 2)
    assert b"00:00:01 GMT" in heads.json_ok
