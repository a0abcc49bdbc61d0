"""Clients that leave, and a listener that does: whom it answers still, and what is left behind."""

import asyncio

import pytest
from http_rig import BOUND_SECONDS, Client, HttpRig, busy, eventually, infer, swept

from serving.clock import ManualClock

# --- leaving ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_client_that_leaves_has_its_request_cancelled(ticking: HttpRig, way: str) -> None:
    """A reset is seen at once; a plain close after one probe. Nobody else notices."""
    with ticking.connect() as other, ticking.connect() as client:
        client.send(infer("slow"))
        assert ticking.plane.started.wait(BOUND_SECONDS)
        if way == "reset":
            client.reset()
        else:
            client.socket.close()

        assert ticking.plane.cancelled.wait(BOUND_SECONDS)
        assert eventually(lambda: ticking.listener.disconnected == 1)
        assert ticking.plane.running == 0
        assert other.ask(infer()).status == 200
        assert eventually(lambda: ticking.listener.connections == 1)


def test_a_half_closed_client_gets_its_answer(client: Client) -> None:
    """`printf … | nc` ends its direction right after the request."""
    client.send(infer())
    client.end()
    answer = client.read()

    assert answer is not None
    assert answer.status == 200
    assert client.closed()


def test_a_half_closed_client_gets_a_late_answer_too(ticking: HttpRig) -> None:
    """It is asked for a sign of life with an interim answer, and then gets its own."""
    with ticking.connect() as client:
        client.send(infer("slow", id_="late") + infer(id_="behind"))
        client.end()
        assert ticking.plane.started.wait(BOUND_SECONDS)
        interim = client.read()
        swept(ticking)
        ticking.release()

        answers = [client.read(), client.read()]

        assert interim is not None
        assert interim.status == 100
        assert [a.json()["id"] for a in answers if a is not None] == ["late", "behind"]
        assert client.closed()
        assert not ticking.plane.cancelled.is_set()


@pytest.mark.parametrize("cut", [10, -5], ids=["head", "body"])
def test_a_request_that_ends_too_early_is_400(client: Client, cut: int) -> None:
    """A half-closed client can still be told that its request is incomplete."""
    client.send(infer()[:cut])
    client.end()
    answer = client.read()

    assert answer is not None
    assert answer.status == 400
    assert client.closed()


def test_a_client_that_comes_and_goes_leaves_nothing(rig: HttpRig) -> None:
    """Connections that ask nothing, or leave in the middle, are forgotten."""
    for data in (b"", b"GET", infer()[:-3], infer()):
        with rig.connect() as client:
            client.send(data)
        with rig.connect() as client:
            client.send(data)
            client.reset()

    assert eventually(lambda: rig.listener.connections == 0)
    assert eventually(lambda: rig.plane.running == 0)


# --- going --------------------------------------------------------------------------------------


def test_a_drain_finishes_what_runs_and_closes_what_waits(
    rig: HttpRig, client: Client, clock: ManualClock
) -> None:
    """In flight: answered, with `connection: close`. Idle: closed. New: refused. Nothing lost."""
    with rig.connect() as idle, rig.connect() as reading:
        assert idle.ask(infer()).status == 200
        whole = infer(id_="being read")
        reading.send(whole[:-5])
        client.send(infer("slow", id_="running"))
        assert rig.plane.started.wait(BOUND_SECONDS)
        rig.call(rig.listener.begin_drain)
        drained = asyncio.run_coroutine_threadsafe(rig.listener.drain(BOUND_SECONDS), rig.loop)

        clock.advance(1.0)
        assert idle.closed()
        assert eventually(lambda: _refuses(rig))
        assert not drained.done()
        reading.send(whole[-5:])
        rig.release()
        answers = [client.read(), reading.read()]

        assert [a.json()["id"] for a in answers if a is not None] == ["running", "being read"]
        assert all(a.headers["connection"] == "close" for a in answers if a is not None)
        assert client.closed()
        assert reading.closed()
        client.socket.close()
        reading.socket.close()
        idle.socket.close()
        assert drained.result(BOUND_SECONDS) == 0


def _refuses(rig: HttpRig) -> bool:
    try:
        rig.connect().socket.close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_request_already_on_its_way_is_answered_while_draining(rig: HttpRig) -> None:
    """A keep-alive client that has not yet heard of the drain loses nothing."""
    with rig.connect() as client:
        client.ask(infer())
        rig.call(rig.listener.begin_drain)

        answer = client.ask(infer(id_="last"))

        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.closed()


def test_a_drain_says_how_many_it_abandoned(rig: HttpRig, client: Client) -> None:
    """When time is up the rest is cancelled, counted, and its clients see the end."""
    with rig.connect() as other:
        client.send(infer("slow"))
        other.send(infer()[:-1])
        assert rig.plane.started.wait(BOUND_SECONDS)
        assert eventually(lambda: busy(rig) == 2)

        assert rig.run(rig.listener.drain(0.05)) == 2
        assert rig.plane.cancelled.is_set()
        assert client.closed()
        assert other.closed()
        assert rig.listener.connections == 0


def test_a_drain_of_nothing_is_immediate(rig: HttpRig) -> None:
    """And may be asked for twice."""
    assert rig.run(rig.listener.drain(BOUND_SECONDS)) == 0
    assert rig.run(rig.listener.drain(BOUND_SECONDS)) == 0
