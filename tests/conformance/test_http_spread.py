"""Two listeners that even out their connections: what clients of the fuller one see of it."""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from http_rig import Client, HttpRig, eventually, infer

from serving.clock import ManualClock

CONNECTIONS = 12


class Pair:
    """Two rigs that know each other; everybody connects to the first."""

    def __init__(self, first: HttpRig, second: HttpRig, trusting: ssl.SSLContext | None) -> None:
        self.first = first
        self.second = second
        self._trusting = trusting

    def meet(self) -> None:
        """Have both look who is there."""
        for rig in (self.first, self.second, self.first):
            assert rig.spread is not None
            rig.call(rig.spread.beat)

    def connect(self) -> Client:
        """A connection to the first, with its TLS handshake done."""
        client = self.first.connect()
        if self._trusting is not None:
            client.socket = self._trusting.wrap_socket(client.socket, server_hostname="127.0.0.1")
        return client

    def counts(self) -> list[int]:
        """The connections of both."""
        return [rig.call(lambda rig=rig: rig.listener.connections) for rig in self.rigs]

    @property
    def rigs(self) -> tuple[HttpRig, HttpRig]:
        """Both."""
        return self.first, self.second


@contextlib.contextmanager
def _pair(folder: Path, *, tls: bool, met: bool = True) -> Iterator[Pair]:
    server = trusting = None
    if tls:
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
    clock = ManualClock()
    with (  # the second does not see who comes later until it looks
        HttpRig(folder, worker=1, tls=server, clock=clock) as second,
        HttpRig(folder, worker=0, tls=server, clock=clock) as first,
    ):
        pair = Pair(first, second, trusting)
        if met:
            pair.meet()
        yield pair


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """One that speaks TLS, and one that does not."""
    with _pair(tmp_path, tls=request.param) as pair:
        yield pair


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Pair]:
    """One without TLS."""
    with _pair(tmp_path, tls=False) as pair:
        yield pair


def test_half_of_the_connections_are_served_by_the_other(pair: Pair) -> None:
    """Each of them is answered, more than once, and nobody has clearly more."""
    with contextlib.ExitStack() as stack:
        clients, answers = [], []
        for _ in range(CONNECTIONS):
            clients.append(stack.enter_context(pair.connect()))
            answers.append(clients[-1].ask(infer()).status)
        answers += [client.ask(infer()).status for client in clients]
        counts = pair.counts()

    assert answers == [200] * (2 * CONNECTIONS)
    assert sum(counts) == CONNECTIONS
    assert max(counts) - min(counts) <= 2


def test_a_closed_connection_is_gone_for_both(pair: Pair) -> None:
    """Who gave it away holds nothing of it that would keep it open."""
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(pair.connect()).ask(infer())

    assert eventually(lambda: pair.counts() == [0, 0])


def test_a_request_that_came_with_the_connection_is_answered(plain: Pair) -> None:
    """Nothing is read before it is decided who serves."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(plain.first.connect()) for _ in range(CONNECTIONS)]
        for client in clients:
            client.send(infer() * 2)
        answers = [client.read() for client in clients for _ in range(2)]

    assert [answer is not None and answer.status for answer in answers] == [200] * len(answers)


def test_a_handshake_that_does_not_come_counts_as_a_connection(tmp_path: Path) -> None:
    """Silent clients of a TLS port are spread like others, and let go of like others."""
    with _pair(tmp_path, tls=True) as pair, contextlib.ExitStack() as stack:

        def handshaking() -> list[int]:
            return [
                rig.call(lambda rig=rig: len(rig.listener._shared.arriving)) for rig in pair.rigs
            ]

        for number in range(CONNECTIONS):
            stack.enter_context(pair.first.connect())
            assert eventually(lambda number=number: sum(handshaking()) == number + 1)
        assert max(handshaking()) - min(handshaking()) <= 2
        stack.close()
        assert eventually(lambda: handshaking() == [0, 0])


def test_nonsense_instead_of_a_handshake_closes_only_that_connection(tmp_path: Path) -> None:
    """As without siblings."""
    with _pair(tmp_path, tls=True) as pair, pair.first.connect() as hostile:
        hostile.send(b"GET / HTTP/1.1\r\n\r\n")
        while hostile.socket.recv(4096):
            pass
        with pair.connect() as client:
            assert client.ask(infer()).status == 200


def test_a_connection_is_handed_over_once_at_most(tmp_path: Path) -> None:
    """Who is given one serves it, also if it has the most."""
    with _pair(tmp_path, tls=False, met=False) as pair, contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(pair.second.connect()).ask(infer())
        pair.meet()
        spread = pair.first.spread
        assert spread is not None
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = stack.enter_context(Client(listening.getsockname()))
            accepted, _ = listening.accept()
        with accepted:
            given = pair.first.call(lambda: spread.give(1, accepted.fileno()))
        answer = client.ask(infer())
        counts = pair.counts()

    assert given
    assert answer.status == 200
    assert counts == [0, 5]
