"""Bodies that are right: binary tensors, compression, chunks, and pieces of any size."""

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_rig import Client, HttpRig, infer, request

INFER = "/v2/models/echo/infer"
CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """One connection to a listener with default limits and an open data plane."""
    with HttpRig(tmp_path) as rig, rig.connect() as client:
        yield client


def _binary(values: tuple[float, ...], outputs: list[dict[str, object]] | None = None) -> bytes:
    raw = struct.pack(f"<{len(values)}f", *values)
    document: dict[str, object] = {
        "inputs": [
            {
                "name": "X",
                "shape": [1, len(values)],
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(raw)},
            }
        ]
    }
    if outputs is None:
        document["parameters"] = {"binary_data_output": True}
    else:
        document["outputs"] = outputs
    text = json.dumps(document).encode()
    return request("POST", INFER, text + raw, f"Inference-Header-Content-Length: {len(text)}\r\n")


def test_binary_tensors_go_in_and_come_out(client: Client) -> None:
    """The header says where JSON ends in both directions; the type is octet-stream."""
    answer = client.ask(_binary((1.5, 2.5, 3.5)))

    length = int(answer.headers["inference-header-content-length"])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert json.loads(answer.body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 12}
    assert struct.unpack("<3f", answer.body[length:]) == (1.5, 2.5, 3.5)


def test_binary_in_may_be_json_out(client: Client) -> None:
    """Without a binary output there is no such header and the type is JSON."""
    answer = client.ask(_binary((1.5, 2.5), [{"name": "X"}]))

    assert "inference-header-content-length" not in answer.headers
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["outputs"][0]["data"] == [1.5, 2.5]


def test_a_raw_request_is_the_bytes_of_the_only_input(client: Client) -> None:
    """With a header length of 0 the body is one row of the model's input."""
    answer = client.ask(
        request(
            "POST",
            INFER,
            struct.pack("<3f", 1, 2, 3),
            "Inference-Header-Content-Length: 0\r\n",
        )
    )

    length = int(answer.headers["inference-header-content-length"])
    assert answer.status == 200
    assert struct.unpack("<3f", answer.body[length:]) == (1, 2, 3)


@pytest.mark.parametrize("size", [3, 5_000])
@pytest.mark.parametrize(
    ("name", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)],
)
def test_compressed_bodies_are_inflated(
    client: Client, name: str, pack: type[bytes], size: int
) -> None:
    """Both gzip and zlib, small and large, on an inference."""
    plain = infer(values=tuple(float(i % 7) for i in range(size)))
    body = plain.partition(b"\r\n\r\n")[2]

    answer = client.ask(request("POST", INFER, pack(body), f"Content-Encoding: {name}\r\n"))

    assert answer.status == 200
    assert len(answer.json()["outputs"][0]["data"]) == size


@pytest.mark.parametrize("size", [500, 50_000])
@pytest.mark.parametrize(
    ("offer", "unpack"),
    [
        ("gzip", gzip.decompress),
        ("deflate", zlib.decompress),
        ("gzip, deflate, br", gzip.decompress),
        ("gzip;q=0.1, deflate;q=0.9", zlib.decompress),
    ],
)
def test_large_answers_are_compressed_as_offered(
    client: Client, offer: str, unpack: type[bytes], size: int
) -> None:
    """The preferred of gzip and deflate, never anything else."""
    values = tuple(float(i) for i in range(size))

    answer = client.ask(infer(values=values, headers=f"Accept-Encoding: {offer}\r\n"))

    assert answer.headers["content-encoding"] in ("gzip", "deflate")
    assert answer.headers["vary"] == "accept-encoding"
    assert json.loads(unpack(answer.body))["outputs"][0]["data"] == list(values)


@pytest.mark.parametrize(
    ("offer", "size"),
    [("", 500), ("br", 500), ("gzip;q=0", 500), ("identity", 500), ("gzip", 3)],
)
def test_answers_stay_plain_when_small_or_not_offered(
    client: Client, offer: str, size: int
) -> None:
    """A kilobyte or less is not worth compressing."""
    headers = f"Accept-Encoding: {offer}\r\n" if offer else ""

    answer = client.ask(infer(values=(1.0,) * size, headers=headers))

    assert "content-encoding" not in answer.headers
    assert answer.status == 200


def test_metadata_is_never_compressed(client: Client) -> None:
    """The offer aiohttp makes is on every request, but tritonclient inflates inferences only."""
    answer = client.ask(request(target="/v2/models/stats", headers="Accept-Encoding: gzip\r\n"))

    assert len(answer.body) > 1024
    assert "content-encoding" not in answer.headers


def _chunked(*parts: bytes, extra: bytes = b"", trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extra, part) for part in parts)
    return (
        request("POST", INFER, None, CHUNKED) + body + b"0" + extra + b"\r\n" + trailers + b"\r\n"
    )


def test_chunked_bodies_are_joined(client: Client) -> None:
    """Extensions and trailers are dropped; requests behind a chunked one keep their place."""
    body = infer(id_="chunked").partition(b"\r\n\r\n")[2]
    blank = b'{"id": "blank",\r\n\r\n\r\n' + body[body.index(b'"inputs"') :]
    client.send(
        _chunked(body[:9], body[9:], extra=b";a=b", trailers=b"X-Sum: 1\r\nHost: evil\r\n")
        + infer(id_="next")
        + _chunked(*(bytes([byte]) for byte in body))
        + _chunked(blank)
        + infer(id_="last")
    )

    answers = [client.read() for _ in range(5)]

    ids = [answer.json()["id"] for answer in answers if answer is not None]
    assert ids == ["chunked", "next", "chunked", "blank", "last"]


def test_a_chunked_body_may_arrive_in_any_pieces(client: Client) -> None:
    """Every split of a request with a blank line in its body gives the same answer."""
    body = (
        b'{"id": "split",\r\n\r\n"inputs": [{"name":"X","shape":[1],"datatype":"FP32","data":[1]}]}'
    )
    whole = _chunked(body[:20], body[20:], trailers=b"A: b\r\n") + infer(id_="behind")
    for cut in range(80, len(whole) - 1, 7):
        client.send(whole[:cut])
        client.send(whole[cut:])
        first, second = client.read(), client.read()

        assert first is not None
        assert second is not None
        assert (first.json()["id"], second.json()["id"]) == ("split", "behind")


def test_a_head_may_arrive_in_any_pieces(client: Client) -> None:
    """Two packets cut anywhere in head or body mean the same as one."""
    whole = infer(id_="cut")
    for cut in range(1, len(whole) - 1, 5):
        client.send(whole[:cut])
        client.send(whole[cut:])
        answer = client.read()

        assert answer is not None
        assert answer.json()["id"] == "cut"


def test_blank_lines_before_a_request_are_ignored(client: Client) -> None:
    """As some old clients send them after a body."""
    client.send(b"\r\n")

    assert client.ask(b"\r\n\r\n" + infer()).status == 200


def test_a_body_on_a_get_is_read_and_ignored(client: Client) -> None:
    """It must not be taken for the next request."""
    smuggled = request(target="/v2/models/nobody")
    answers = client.ask(request("GET", "/v2/health/live", smuggled) + infer()), client.read()

    assert answers[0].json() == {"live": True}
    assert answers[1] is not None
    assert answers[1].json()["id"] == "a"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_offer_to_upgrade_is_ignored(client: Client, method: str) -> None:
    """With --http2 curl offers h2c; it gets its answer in HTTP/1.1, body or not."""
    headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    if method == "GET":
        answer = client.ask(request(headers=headers))
    else:
        answer = client.ask(infer(headers=headers))

    assert answer.status == 200
    assert client.ask(infer()).status == 200


def test_an_upgrade_with_a_chunked_body_is_answered(client: Client) -> None:
    """The body is read although llhttp would leave it to the new protocol."""
    body = infer().partition(b"\r\n\r\n")[2]
    headers = CHUNKED + "Connection: Upgrade\r\nUpgrade: h2c\r\n"
    data = request("POST", INFER, None, headers) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)

    assert client.ask(data).status == 200


def test_expect_continue_is_granted_when_the_body_would_be_read(client: Client) -> None:
    """Before a large body curl waits for it."""
    whole = infer(headers="Expect: 100-continue\r\n")
    head, _, body = whole.partition(b"\r\n\r\n")

    assert client.ask(head + b"\r\n\r\n").status == 100
    assert client.ask(body).status == 200


@pytest.mark.parametrize(
    ("target", "length", "status"),
    [("/v2/nothing", 10, 404), (INFER, 17 << 20, 413), ("/v2", 10, 405)],
)
def test_expect_continue_is_refused_by_the_final_answer(
    client: Client, target: str, length: int, status: int
) -> None:
    """Nobody uploads a body that will not be read."""
    headers = f"Expect: 100-continue\r\nContent-Length: {length}\r\n"

    answer = client.ask(request("POST", target, None, headers))

    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert client.closed()
