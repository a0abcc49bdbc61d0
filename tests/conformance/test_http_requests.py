"""Requests that are right: every path, header and way to connect that a client may use."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from echo_plane import MODELS, EchoPlane
from http_rig import Client, HttpRig, infer, request

INFER = "/v2/models/echo/infer"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[HttpRig]:
    """A listener with default limits and an open data plane."""
    with HttpRig(tmp_path) as rig:
        yield rig


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2", {"name": "echo", "version": "0", "extensions": ["binary_tensor_data"]}),
        ("/v2/models", {"models": list(MODELS)}),
        ("/v2/models/echo/ready", {"name": "echo", "ready": True}),
        ("/v2/models/echo/versions/1/ready", {"name": "echo", "ready": True}),
        ("/v2/models/%65cho/ready", {"name": "echo", "ready": True}),
        ("/v2/health/live?verbose=1", {"live": True}),
        ("http://elsewhere:1/v2/health/live", {"live": True}),
        ("HTTPS://elsewhere/v2/health/live?x=/../y", {"live": True}),
        ("/v2/trace/setting", {"trace_level": ["OFF"], "trace_rate": "1000"}),
        ("/v2/models/echo/trace/setting", {"trace_level": ["OFF"], "trace_rate": "1000"}),
        ("/v2/logging", {"log_info": True, "log_verbose_level": 0}),
    ],
)
def test_a_get_answers_the_protocols_json(client: Client, target: str, expected: object) -> None:
    """Health, metadata and settings answer 200 and exactly `application/json`."""
    answer = client.ask(request(target=target))

    assert (answer.status, answer.json()) == (200, expected)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/v2/models/echo", "inputs"),
        ("/v2/models/echo/versions/1", "inputs"),
        ("/v2/models/echo/config", "max_batch_size"),
        ("/v2/models/echo/versions/1/config", "max_batch_size"),
        ("/v2/models/stats", "model_stats"),
        ("/v2/models/echo/stats", "model_stats"),
        ("/v2/models/echo/versions/1/stats", "model_stats"),
    ],
)
def test_metadata_config_and_statistics_are_served(client: Client, target: str, key: str) -> None:
    """With and without a version, for one model and for all."""
    answer = client.ask(request(target=target))

    assert answer.status == 200
    assert answer.json()[key]


@pytest.mark.parametrize("attribute", ["is_live", "is_ready"])
def test_health_that_is_false_is_503(rig: HttpRig, client: Client, attribute: str) -> None:
    """A load balancer reads the status, KServe's client the body."""
    setattr(rig.plane, attribute, False)
    word = attribute.removeprefix("is_")

    answer = client.ask(request(target=f"/v2/health/{word}"))

    assert (answer.status, answer.json()) == (503, {word: False})


def test_a_model_that_is_not_ready_is_503(client: Client) -> None:
    """Clients such as tritonclient read anything but 200 as false."""
    assert client.ask(request(target="/v2/models/unready/ready")).status == 503


@pytest.mark.parametrize(("body", "count"), [(b"", 8), (b"{}", 8), (b'{"ready":true}', 7)])
def test_the_repository_index_lists_what_is_asked_for(
    client: Client, body: bytes, count: int
) -> None:
    """An empty body, as tritonclient sends it, lists everything."""
    answer = client.ask(request("POST", "/v2/repository/index", body))

    assert len(answer.json()) == count


def test_head_answers_like_get_without_a_body(client: Client) -> None:
    """Some load balancers probe with HEAD; the connection stays in step."""
    client.send(request("HEAD", "/v2/health/live"))
    answer = client.read(head_only=True)

    assert answer is not None
    assert (answer.status, answer.headers["content-length"]) == (200, "13")
    assert client.ask(infer()).status == 200


def test_an_inference_is_answered_and_carries_its_call(tmp_path: Path) -> None:
    """Id, deadline, credential, trace and wanted headers reach the plane; others do not."""
    headers = (
        "X-Request-Id: r-1\r\nX-Request-Timeout: 250ms\r\nAuthorization: Bearer t\r\n"
        "Traceparent: 00-a-b-01\r\nTracestate: k=v\r\nTracestate: l=w\r\n"
        "X-Sluice-Version: v2\r\nX-Other: no\r\n"
    )
    names = frozenset({"x-sluice-version", "x-cohort"})
    with HttpRig(tmp_path, header_names=names) as rig, rig.connect() as client:
        answer = client.ask(infer(headers=headers, id_="7"))
        call = rig.plane.calls[0]

    assert answer.status == 200
    assert answer.json()["id"] == "7"
    assert answer.json()["outputs"][0]["data"] == [1.0, 2.0, 3.0]
    assert answer.headers["x-request-id"] == "r-1"
    assert (call.protocol, call.timeout, call.authorization) == ("http", 0.25, "Bearer t")
    assert (call.request_id, call.traceparent, call.tracestate) == ("r-1", "00-a-b-01", "k=v, l=w")
    assert call.headers == {"x-sluice-version": "v2"}
    assert 0.0 < call.arrived <= call.decoded


def test_headers_wanted_later_are_seen_on_an_open_connection(rig: HttpRig, client: Client) -> None:
    """A new traffic plan applies to the next request, also if its head is the same as before."""
    once = infer(headers="x-cohort: blue\r\n")
    client.ask(once)
    client.ask(once)
    rig.header_names = frozenset({"x-cohort"})

    client.ask(once)

    assert [call.headers for call in rig.plane.calls] == [{}, {}, {"x-cohort": "blue"}]


@pytest.mark.parametrize("bad", ["a b", "x" * 129, "\xe9", ""])
def test_a_request_id_that_could_forge_a_log_line_is_ignored(
    rig: HttpRig, client: Client, bad: str
) -> None:
    """Only 1 to 128 visible ASCII characters are echoed and passed on."""
    answer = client.ask(infer(headers=f"x-request-id: {bad}\r\n"))

    assert answer.status == 200
    assert "x-request-id" not in answer.headers
    assert rig.plane.calls[0].request_id == ""


def test_the_same_head_again_is_read_afresh_each_time(rig: HttpRig, client: Client) -> None:
    """Repeating a head byte for byte changes neither body, arrival time nor answer."""
    answers = [
        client.ask(infer(values=values, id_=id_))
        for values, id_ in (((1.0, 2.0, 3.0), "a"), ((4.0, 5.0, 6.0), "b"), ((7.0, 8.0, 9.0), "c"))
    ]

    assert [answer.json()["id"] for answer in answers] == ["a", "b", "c"]
    assert [a.json()["outputs"][0]["data"][0] for a in answers] == [1.0, 4.0, 7.0]
    arrivals = [call.arrived for call in rig.plane.calls]
    assert arrivals == sorted(set(arrivals))


def test_heads_that_always_differ_are_answered_as_well(rig: HttpRig, client: Client) -> None:
    """A client with request ids is not remembered, one that settles down is answered too."""
    for number in range(30):
        headers = f"x-request-id: {min(number, 20)}\r\n"
        answer = client.ask(infer(headers=headers, id_=str(number)))

        assert answer.json()["id"] == str(number)
        assert answer.headers["x-request-id"] == str(min(number, 20))
    assert [call.request_id for call in rig.plane.calls][18:22] == ["18", "19", "20", "20"]


@pytest.mark.parametrize(
    ("version", "headers", "connection", "closes"),
    [
        ("HTTP/1.1", "", None, False),
        ("HTTP/1.1", "Connection: close\r\n", "close", True),
        ("HTTP/1.1", "Connection: keep-alive, Close\r\n", "close", True),
        ("HTTP/1.1", "Connection: x\r\nConnection: close\r\n", "close", True),
        ("HTTP/1.0", "", "close", True),
        ("HTTP/1.0", "Connection: keep-alive\r\n", "keep-alive", False),
    ],
)
def test_the_connection_lives_as_version_and_header_say(
    client: Client, version: str, headers: str, connection: str | None, closes: bool
) -> None:
    """HTTP/1.1 keeps it unless told, HTTP/1.0 closes it unless told; the answer says which."""
    answer = client.ask(request(headers=headers, version=version))

    assert answer.status == 200
    assert answer.headers.get("connection") == connection
    if closes:
        assert client.closed()
    else:
        assert client.ask(infer()).status == 200


def test_http_1_0_needs_no_host(client: Client) -> None:
    """Old health checks send none."""
    assert client.ask(request(host="", version="HTTP/1.0")).status == 200


def test_nothing_is_read_behind_a_request_that_closes(rig: HttpRig, client: Client) -> None:
    """What follows `Connection: close` is not a request."""
    answer = client.ask(infer(headers="Connection: close\r\n") + infer(id_="ghost"))

    assert answer.json()["id"] == "a"
    assert client.closed()
    assert len(rig.plane.requests) == 1


TOKENS = {"Bearer good": frozenset({"infer"}), "Bearer weak": frozenset[str]()}


@pytest.mark.parametrize(
    ("headers", "status"),
    [("", 401), ("Authorization: Bearer bad\r\n", 401), ("Authorization: Bearer weak\r\n", 403)],
)
@pytest.mark.parametrize("target", ["/v2", "/v2/models/echo", "/v2/nothing", INFER, "/v2/x%00"])
def test_a_closed_data_plane_tells_strangers_nothing(
    tmp_path: Path, headers: str, status: int, target: str
) -> None:
    """The credential comes before the path, the method and the body."""
    with HttpRig(tmp_path, plane=EchoPlane(TOKENS)) as rig, rig.connect() as client:
        answer = client.ask(request("POST", target, b"{}", headers))

        assert answer.status == status
        assert ("www-authenticate" in answer.headers) is (status == 401)
        assert rig.plane.requests == []
        assert client.ask(infer(headers="Authorization: Bearer good\r\n")).status == 200


def test_health_needs_no_credential(tmp_path: Path) -> None:
    """Load balancers have none."""
    with HttpRig(tmp_path, plane=EchoPlane(TOKENS)) as rig, rig.connect() as client:
        for target in ("/v2/health/live", "/v2/health/ready", "/v2/he%61lth/ready"):
            assert client.ask(request(target=target)).status == 200


def test_a_stranger_does_not_get_to_upload(tmp_path: Path) -> None:
    """401 comes from the head alone, before the body has been sent."""
    with HttpRig(tmp_path, plane=EchoPlane(TOKENS)) as rig, rig.connect() as client:
        answer = client.ask(request("POST", INFER, None, "Content-Length: 1000000\r\n"))

        assert answer.status == 401
        assert client.closed()


def test_a_revoked_credential_fails_on_an_open_connection(tmp_path: Path) -> None:
    """A head that was good before is checked again."""
    plane = EchoPlane(dict(TOKENS))
    with HttpRig(tmp_path, plane=plane) as rig, rig.connect() as client:
        once = infer(headers="Authorization: Bearer good\r\n")
        assert client.ask(once).status == 200
        assert client.ask(once).status == 200
        assert plane.tokens is not None
        plane.tokens.clear()

        assert client.ask(once).status == 401
        plane.tokens.update(TOKENS)
        assert client.ask(once).status == 200


def test_a_unix_socket_is_served_too(tmp_path: Path) -> None:
    """For a proxy on the same machine."""
    with HttpRig(tmp_path, family=socket.AF_UNIX) as rig, rig.connect() as client:
        assert client.ask(infer()).status == 200


def test_tls_is_served_and_closes_politely(tmp_path: Path) -> None:
    """The same answers over TLS, and a close notification at the end."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with HttpRig(tmp_path, tls=server) as rig, rig.connect() as client:
        client.socket = trusting.wrap_socket(client.socket, server_hostname="127.0.0.1")
        assert client.ask(infer()).status == 200
        assert client.ask(b"nonsense\r\n\r\n").status == 400
        assert client.closed()
