import contextlib
import socket
from collections.abc import Iterator

import pytest

from serving.config.addresses import Address, parse_address
from serving.engine import ports
from serving.engine.ports import HeldPort, written
from serving.errors import EngineError

LOOPBACK = Address("127.0.0.1", 0)


def test_an_ipv6_address_is_written_with_brackets() -> None:
    """What was parsed can be printed and parsed again."""
    assert written(Address("::1", 8000)) == "[::1]:8000"
    assert parse_address(written(Address("::1", 8000))) == Address("::1", 8000)


@pytest.mark.parametrize(
    ("host", "reachable"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")]
)
def test_every_interface_is_reached_over_loopback(host: str, reachable: str) -> None:
    """A client cannot connect to 0.0.0.0 everywhere, so the printed address is loopback."""
    assert ports.reachable(Address(host, 1)) == Address(reachable, 1)


@pytest.fixture
def held() -> Iterator[HeldPort]:
    """A shared port of our own."""
    port = HeldPort(LOOPBACK, "listen.http", shared=True)
    yield port
    port.close()


@contextlib.contextmanager
def listener(address: Address, *, reuse_port: bool, reuse_address: bool) -> Iterator[socket.socket]:
    """A server on `address` with the options a worker or another program would set."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse_address))
        server.bind((address.host, address.port))
        server.listen(8)
        yield server


def test_port_zero_becomes_a_real_port_once(held: HeldPort) -> None:
    """The number is known before any worker starts."""
    assert held.address.port > 0


@pytest.mark.parametrize("reuse_address", [False, True])
def test_workers_share_a_held_port(held: HeldPort, reuse_address: bool) -> None:
    """Two listeners with SO_REUSEPORT join, and connections reach them, never the holder."""
    with (
        listener(held.address, reuse_port=True, reuse_address=reuse_address) as first,
        listener(held.address, reuse_port=True, reuse_address=reuse_address) as second,
    ):
        reached = 0
        for server in (first, second):
            server.setblocking(False)
        for _ in range(20):
            with socket.create_connection((held.address.host, held.address.port), 5):
                for server in (first, second):
                    with contextlib.suppress(BlockingIOError):
                        server.accept()[0].close()
                        reached += 1

    assert reached == 20


@pytest.mark.parametrize("reuse_address", [False, True])
def test_a_server_without_reuseport_cannot_take_a_held_port(
    held: HeldPort, reuse_address: bool
) -> None:
    """A held port is refused to everybody who does not ask to share it."""
    with (
        pytest.raises(OSError, match="in use"),
        listener(held.address, reuse_port=False, reuse_address=reuse_address),
    ):
        pass


def test_two_engines_cannot_hold_one_port(held: HeldPort) -> None:
    """The second is refused even before any worker listens, with the port and the option."""
    with pytest.raises(EngineError, match=rf"{written(held.address)} is in use.*listen\.grpc"):
        HeldPort(held.address, "listen.grpc", shared=True)


def test_a_port_whose_workers_listen_is_refused_although_it_could_be_shared(
    held: HeldPort,
) -> None:
    """SO_REUSEPORT would give a second gateway half of the connections, so we never ask for it."""
    with (
        listener(held.address, reuse_port=True, reuse_address=True),
        pytest.raises(EngineError, match="another gateway"),
    ):
        HeldPort(held.address, "listen.http", shared=True)


def test_an_ordinary_server_may_take_an_unshared_held_port() -> None:
    """Control's server sets only SO_REUSEADDR."""
    held = HeldPort(LOOPBACK, "listen.admin", shared=False)
    try:
        with listener(held.address, reuse_port=False, reuse_address=True) as server:
            assert server.getsockname()[1] == held.address.port
    finally:
        held.close()


def test_connections_closed_a_moment_ago_do_not_refuse_a_restart(held: HeldPort) -> None:
    """A port in TIME_WAIT, as a gateway that closed first leaves it, can be held again at once."""
    with listener(held.address, reuse_port=True, reuse_address=True) as server:
        client = socket.create_connection((held.address.host, held.address.port), 5)
        server.accept()[0].close()  # this side closes first, so it keeps TIME_WAIT
        assert client.recv(1) == b""
        client.close()
    held.close()

    again = HeldPort(held.address, "listen.http", shared=True)
    try:
        with (
            listener(held.address, reuse_port=True, reuse_address=True),
            pytest.raises(EngineError, match="in use"),
        ):
            HeldPort(held.address, "listen.http", shared=True)
    finally:
        again.close()


def test_a_port_held_past_time_wait_is_still_exclusive(held: HeldPort) -> None:
    """The second way of binding refuses other engines just as the first does."""
    with listener(held.address, reuse_port=True, reuse_address=True) as server:
        client = socket.create_connection((held.address.host, held.address.port), 5)
        server.accept()[0].close()
        assert client.recv(1) == b""
        client.close()
    held.close()

    again = HeldPort(held.address, "listen.http", shared=True)
    try:
        with pytest.raises(EngineError, match="in use"):
            HeldPort(held.address, "listen.http", shared=True)
    finally:
        again.close()


def test_a_foreign_address_is_refused_by_name() -> None:
    """An address of another machine says so instead of an errno (192.0.2.0/24: RFC 5737)."""
    with pytest.raises(EngineError, match="does not belong to this machine"):
        HeldPort(Address("192.0.2.1", 0), "listen.http", shared=True)


@pytest.mark.parametrize("order", [("192.0.2.1", "127.0.0.1"), ("127.0.0.1", "192.0.2.1")])
def test_a_name_may_stand_for_addresses_that_are_not_here(
    monkeypatch: pytest.MonkeyPatch, order: tuple[str, str]
) -> None:
    """`localhost` means ::1 as well, also on machines without IPv6; what is here is held."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in order]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    held = HeldPort(Address("some.name", 0), "listen.http", shared=True)
    try:
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind(("127.0.0.1", held.address.port))
    finally:
        held.close()


def test_an_unknown_host_is_refused_by_name() -> None:
    """`.invalid` never resolves (RFC 2606)."""
    with pytest.raises(EngineError, match=r"listen\.http: no such host: `nowhere\.invalid`"):
        HeldPort(Address("nowhere.invalid", 8000), "listen.http", shared=True)


def test_closing_gives_the_port_back(held: HeldPort) -> None:
    """After close anybody may bind it."""
    held.close()

    with listener(held.address, reuse_port=False, reuse_address=False):
        pass
