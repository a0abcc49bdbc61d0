"""Slow, silent, hasty and very many clients."""

import json
import resource
import select
import socket
from pathlib import Path

import msgspec
import pytest
from echo_plane import EchoPlane
from http_rig import BOUND_SECONDS, Client, HttpRig, busy, eventually, infer, request, swept

from serving.clock import ManualClock
from serving.config.schema import Limits
from serving.config.units import ByteSize
from serving.metrics import read

INFER = "/v2/models/echo/infer"


# --- slow -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("started", "limit", "word"),
    [
        (b"G", 5.0, "head"),
        (b"GET /v2 HTTP/1.1\r\nHost: a\r\nX-Slow", 5.0, "head"),
        (infer()[:-1], 10.0, "body"),
        (request("POST", INFER, None, "Transfer-Encoding: chunked\r\n") + b"5\r\nab", 10.0, "body"),
    ],
    ids=["first byte", "headers", "body", "chunks"],
)
def test_a_request_that_trickles_in_is_408(
    rig: HttpRig, clock: ManualClock, started: bytes, limit: float, word: str
) -> None:
    """Head and body have their time, counted from their beginning; then the connection goes."""
    with rig.connect() as client:
        client.send(started)
        assert eventually(lambda: busy(rig) == 1)
        clock.advance(limit - 0.5)
        swept(rig)
        assert rig.listener.connections == 1
        clock.advance(1.5)

        answer = client.read()

        assert answer is not None
        assert answer.status == 408
        assert word in answer.json()["error"]
        assert client.closed()


def test_bytes_do_not_buy_time(rig: HttpRig, client: Client, clock: ManualClock) -> None:
    """A byte now and then does not move the deadline of a head."""
    client.send(b"GET /v2 HTTP/1.1\r\n")
    assert eventually(lambda: busy(rig) == 1)
    for _ in range(3):
        clock.advance(1.8)
        client.send(b"X")
        swept(rig)
    clock.advance(1.8)

    answer = client.read()

    assert answer is not None
    assert answer.status == 408


def test_a_silent_new_connection_is_closed_without_a_word(
    rig: HttpRig, client: Client, clock: ManualClock
) -> None:
    """Browsers open spare connections; a 408 on one would be taken for an answer."""
    assert eventually(lambda: rig.listener.connections == 1)
    clock.advance(6.0)

    assert client.closed()


def test_an_idle_connection_is_kept_for_a_minute(
    rig: HttpRig, client: Client, clock: ManualClock
) -> None:
    """Between requests only idle_timeout counts."""
    client.ask(infer())
    clock.advance(59.0)
    swept(rig)
    client.ask(infer())
    clock.advance(62.0)

    assert client.closed()


def test_a_running_request_is_not_timed_out_by_the_listener(
    rig: HttpRig, client: Client, clock: ManualClock
) -> None:
    """Its deadline is the pipeline's business."""
    client.send(infer("slow"))
    assert rig.plane.started.wait(BOUND_SECONDS)
    clock.advance(1000.0)
    swept(rig)
    rig.release()

    answer = client.read()

    assert answer is not None
    assert answer.status == 200


def _flood(client: Client, data: bytes) -> int:
    """Send until the server takes no more; returns how many whole requests were taken."""
    client.socket.setblocking(False)
    sent = 0
    while select.select([], [client.socket], [], 1.0)[1]:
        try:
            sent += client.socket.send(data[sent % len(data) :])
        except BlockingIOError:
            break
    client.socket.settimeout(BOUND_SECONDS)
    return sent // len(data)


def test_a_client_that_never_reads_is_cut_off(
    rig: HttpRig, client: Client, clock: ManualClock
) -> None:
    """Its answers fill a bounded buffer, its requests are no longer read, then it is dropped."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    taken = _flood(client, infer(values=(1.0,) * 20_000))
    answered = len(rig.plane.requests)
    swept(rig)

    assert taken > 3
    assert len(rig.plane.requests) == answered < taken + 1
    assert rig.listener.connections == 1
    clock.advance(11.0)
    assert eventually(lambda: rig.listener.connections == 0)


def test_a_client_that_reads_late_gets_everything(client: Client, clock: ManualClock) -> None:
    """Back-pressure loses no request and keeps their order."""
    one = infer(values=(1.0,) * 20_000)
    taken = _flood(client, one)
    clock.advance(1.0)

    answers = [client.read() for _ in range(taken)]

    assert taken > 3
    assert all(answer is not None and answer.status == 200 for answer in answers)


# --- in a hurry ------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(rig: HttpRig, client: Client) -> None:
    """Also when the first takes longest, and whatever kind they are."""
    client.send(
        infer("slow", id_="1")
        + infer(id_="2")
        + request()
        + request(target="/v2/no")
        + infer(id_="5")
    )
    assert rig.plane.started.wait(BOUND_SECONDS)
    client.send(infer(id_="6"))
    assert len(rig.plane.requests) == 1
    rig.release()

    answers = [client.read() for _ in range(6)]

    found = [a.json().get("id", a.status) for a in answers if a is not None]
    assert found == ["1", "2", 200, 404, "5", "6"]


def test_ten_thousand_pipelined_requests_are_answered(client: Client) -> None:
    """Many answers at once need neither recursion nor unbounded memory."""
    count = 10_000
    one = request()
    outstanding = bytearray(one * count)
    client.socket.settimeout(0.0)
    received, tail, answer = 0, b"", b'{"live":true}'
    while received < count:
        ready = select.select(
            [client.socket], [client.socket] if outstanding else [], [], BOUND_SECONDS
        )
        assert ready[0] or ready[1]
        if ready[1]:
            del outstanding[: client.socket.send(outstanding[: 1 << 16])]
        if ready[0]:
            part = tail + client.socket.recv(1 << 16)
            received += part.count(answer)
            tail = part[-len(answer) + 1 :]  # an answer may be cut in two
    assert received == count


def test_a_client_that_pipelines_much_is_made_to_wait(rig: HttpRig, client: Client) -> None:
    """Behind a running request only so much is held in memory; all of it is answered."""
    client.send(infer("slow"))
    assert rig.plane.started.wait(BOUND_SECONDS)
    taken = _flood(client, infer(values=(1.0,) * 20_000))
    held = rig.call(lambda: max(len(c._pending) for c in rig.listener._shared.connections))
    assert held < 1 << 20
    rig.release()

    answers = [client.read() for _ in range(taken + 1)]

    assert all(answer is not None and answer.status == 200 for answer in answers)


# --- many --------------------------------------------------------------------------------------


def test_thousands_of_idle_connections_disturb_nobody(tmp_path: Path) -> None:
    """2,000 silent clients, and another is answered; then all of them are."""
    count = 2_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * count + 500  # both ends are in this process
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"needs {needed} file descriptors, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    clients: list[Client] = []
    try:
        with HttpRig(tmp_path) as rig:
            clients.extend(rig.connect() for _ in range(count))
            assert eventually(lambda: rig.listener.connections == count)
            with rig.connect() as busy:
                for _ in range(50):
                    assert busy.ask(infer()).status == 200
            for client in clients[::10]:
                assert client.ask(infer()).status == 200
    finally:
        for client in clients:
            client.socket.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    """503 with Retry-After, and a place as soon as somebody leaves."""
    limits = Limits(max_connections=2)
    with HttpRig(tmp_path, limits=limits) as rig, rig.connect() as first, rig.connect() as second:
        assert first.ask(infer()).status == second.ask(infer()).status == 200
        with rig.connect() as third:
            refused = third.read()
            assert refused is not None
            assert refused.status == 503
            assert refused.headers["retry-after"] == "1"
            assert third.closed()
        second.socket.close()
        assert eventually(lambda: rig.listener.connections == 1)
        with rig.connect() as fourth:
            assert fourth.ask(infer()).status == 200


# --- counting ----------------------------------------------------------------------------------


def test_connections_and_refusals_are_counted(tmp_path: Path) -> None:
    """Labels come from a fixed list, never from what a client sent."""
    with HttpRig(tmp_path) as rig:
        with rig.connect() as client:
            for name in ("a", "b"):
                client.ask(request(target=f"/v3/{name}"))
            client.ask(b"nonsense\r\n\r\n")
        with rig.connect() as client:
            client.ask(infer("failing"))
            samples = read(rig.metrics.path)

    def value(name: str, *labels: str) -> float:
        return samples[name, labels][0]

    assert value("sluice_connections", "http") in (1.0, 2.0)
    assert value("sluice_rejected_total", "_unknown", "not_found") == 2.0
    assert value("sluice_rejected_total", "_unknown", "invalid_request") == 1.0
    assert {key[0] for key in samples} == {"sluice_connections", "sluice_rejected_total"}


def test_paths_of_strangers_are_not_remembered(rig: HttpRig, client: Client) -> None:
    """Only paths that led to an answer are kept, and only so many."""
    for number in range(2_000):
        client.send(request(target=f"/v2/models/m{number}"))
        assert client.read() is not None
    for number in range(2_000):
        client.send(request(target=f"/v2/health/live?{number}"))
        assert client.read() is not None
    client.ask(infer())

    assert set(rig.listener._shared.router._known) == {b"/v2/models/echo/infer"}


def test_large_bodies_go_through_whole(tmp_path: Path) -> None:
    """A body of many reads and an answer of many writes, next to small ones."""
    limits = msgspec.structs.replace(Limits(), max_body=ByteSize(8 << 20))
    values = [float(number % 1000) for number in range(600_000)]
    body = {"inputs": [{"name": "X", "shape": [600_000], "datatype": "FP32", "data": values}]}
    with HttpRig(tmp_path, limits=limits, plane=EchoPlane()) as rig, rig.connect() as client:
        answer = client.ask(request("POST", INFER, json.dumps(body).encode()))

        assert answer.json()["outputs"][0]["data"] == values
        assert client.ask(infer()).status == 200
