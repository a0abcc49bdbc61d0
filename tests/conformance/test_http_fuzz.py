"""Damaged requests, thousands of them: the listener answers or closes, and goes on."""

import contextlib
import socket
from collections.abc import Iterator

import pytest
from http_rig import Client, HttpRig, infer, request
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

CHUNKED = (
    request("POST", "/v2/models/echo/infer", None, "Transfer-Encoding: chunked\r\n")
    + b'5;x=y\r\n{"id"\r\n0\r\nX: y\r\n\r\n'
)
GOOD = (
    infer(headers="x-request-timeout: 1s\r\nAccept-Encoding: gzip;q=0.5\r\nx-request-id: 7\r\n"),
    request(
        target="http://test/v2/models/echo/versions/1/stats?x=%20", headers="Connection: x\r\n"
    ),
    CHUNKED,
    infer() + CHUNKED + request(),
)
NASTY = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\0", b":", b"%", b"%00", b"/../", b"\r\n\r\n", b"\xff",
     b"HTTP/2.0", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"-1", b"9" * 25]
)  # fmt: skip
EDIT = st.tuples(
    st.floats(0, 1, exclude_max=True), st.integers(0, 6), NASTY | st.binary(max_size=4)
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request in which a few places were overwritten, cut out or added to."""
    data = draw(st.sampled_from(GOOD))
    for place, removed, added in draw(st.lists(EDIT, min_size=1, max_size=4)):
        at = int(place * len(data))
        data = data[:at] + added + data[at + removed :]
    # The client below reads every answer by its Content-Length, which HEAD's has no body for.
    assume(b"HEAD " not in data)
    return data


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpRig]:
    """A listener on a Unix socket: thousands of connections use up no ports."""
    with HttpRig(tmp_path_factory.mktemp("fuzz"), family=socket.AF_UNIX) as rig:
        yield rig


def _drive(client: Client, data: bytes, cut: int) -> list[int]:
    """Send in two pieces, end, and read every answer there is."""
    with contextlib.suppress(OSError):  # refused in the middle
        client.send(data[:cut])
        client.send(data[cut:])
        client.end()
    statuses = []
    while (answer := client.read()) is not None:
        statuses.append(answer.status)
        if answer.status >= 400:
            assert list(answer.json()) == ["error"]
            assert answer.headers["content-type"] == "application/json"
    return statuses


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=st.lists(st.tuples(damaged(), st.integers(0, 400)), min_size=30, max_size=60))
def test_no_damage_to_a_request_breaks_the_listener(
    rig: HttpRig, batch: list[tuple[bytes, int]]
) -> None:
    """Every damaged request ends in answers of the protocol and a closed connection."""
    for data, cut in batch:
        with rig.connect() as client:
            statuses = _drive(client, data, cut)
            assert len(statuses) <= 8
            assert not {500} & set(statuses), (data, statuses)
    with rig.connect() as client:
        assert client.ask(infer()).status == 200
    assert rig.problems == []
