"""Raw bytes in; status, fate of the connection, and an unharmed neighbour out."""

import contextlib
from collections.abc import Iterator

import pytest
from http_bad_input import (
    BODIES,
    FRAMING,
    GOOD,
    INFER,
    MAX_BODY,
    MAX_HEADER,
    MODELS,
    PATHS,
    Row,
    post,
)
from http_rig import Client, HttpRig, infer, request

from serving.config.schema import Limits
from serving.config.units import ByteSize


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpRig]:
    """A listener with small limits."""
    limits = Limits(max_body=ByteSize(MAX_BODY), max_header=ByteSize(MAX_HEADER))
    with HttpRig(tmp_path_factory.mktemp("http"), limits=limits) as rig:
        yield rig


@pytest.fixture(scope="module")
def neighbour(rig: HttpRig) -> Iterator[Client]:
    """A connection that stays open through all rows."""
    with rig.connect() as client:
        yield client


@pytest.mark.parametrize("row", FRAMING + PATHS + BODIES + MODELS, ids=lambda row: row.name)
def test_bad_input_is_refused_and_harms_nobody(rig: HttpRig, neighbour: Client, row: Row) -> None:
    """A wrong request gets its status and an error; only lost framing costs the connection."""
    with rig.connect() as client:
        answer = client.ask(row.data)

        assert answer.status == row.status, answer
        assert answer.headers["content-type"] == "application/json"
        assert "content-encoding" not in answer.headers
        assert list(answer.json()) == ["error"]
        assert row.says.lower() in answer.json()["error"].lower()
        assert "secret" not in answer.json()["error"]
        assert (answer.headers.get("connection") == "close") is row.closes
        if row.closes:
            assert client.closed()
        else:
            assert client.ask(infer(id_="after")).json()["id"] == "after"
    assert neighbour.ask(infer(id_="neighbour")).json()["id"] == "neighbour"


@pytest.mark.parametrize(
    "row",
    [row for row in FRAMING if row.name not in ("large head", "many headers", "large target")],
    ids=lambda row: row.name,
)
def test_bad_framing_is_found_also_when_it_dribbles_in(rig: HttpRig, row: Row) -> None:
    """Where a packet ends decides nothing: byte by byte the same refusal comes."""
    with rig.connect() as client:
        half = len(row.data) // 2
        # It may be refused before all of it was sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for part in (row.data[:1], row.data[1:half], row.data[half:-2], row.data[-2:]):
                client.send(part)
        answer = client.read()

        assert answer is not None
        assert answer.status == row.status
        assert client.closed()


@pytest.mark.parametrize("row", FRAMING, ids=lambda row: row.name)
def test_bad_framing_behind_a_good_request_spoils_only_itself(rig: HttpRig, row: Row) -> None:
    """A good request is answered although the one pipelined behind it is refused."""
    with rig.connect() as client:
        first = client.ask(infer(id_="good") + row.data)
        second = client.read()

        assert first.status == 200
        assert first.json()["id"] == "good"
        assert second is not None
        assert second.status == row.status
        assert client.closed()


def test_errors_name_what_a_client_may_do_about_them(rig: HttpRig) -> None:
    """405 says which method, 415 which encoding, 503 when to come back."""
    with rig.connect() as client:
        assert client.ask(request(target=INFER)).headers["allow"] == "POST"
        assert client.ask(request("TRACE", "/v2")).headers["allow"] == "GET, HEAD"
        refused = client.ask(post(GOOD, "Content-Encoding: br\r\n"))
        assert refused.headers["accept-encoding"] == "gzip, deflate"
        assert client.ask(infer("overloaded")).headers["retry-after"] == "3"


def test_an_error_is_never_compressed(rig: HttpRig) -> None:
    """A client that offers gzip still gets errors as plain JSON."""
    with rig.connect() as client:
        answer = client.ask(
            request(target=f"/v2/models/{'a' * 200}", headers="Accept-Encoding: gzip\r\n")
        )

        assert answer.status == 404
        assert "error" in answer.json()
