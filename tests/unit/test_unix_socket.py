"""Sockets for one user: their mode, and what a dead process left behind."""

import os
import socket
from pathlib import Path

import pytest

from serving.unix_socket import bound_for_owner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a socket is to be."""
    return tmp_path / "a.sock"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_only_its_owner_can_connect(path: Path, kind: socket.SocketKind) -> None:
    """Connecting needs the right to write, and nobody else has it."""
    with bound_for_owner(path, kind):
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_the_process_makes_next_has_its_usual_mode(path: Path) -> None:
    """The mask is put back, also when the socket cannot be bound."""
    before = os.umask(0o022)
    try:
        with bound_for_owner(path), pytest.raises(OSError, match="No such file"):
            bound_for_owner(path.parent / "missing" / "a.sock")
        during = os.umask(0o022)
    finally:
        os.umask(before)

    assert during == 0o022


def test_the_socket_of_a_dead_process_is_replaced(path: Path) -> None:
    """Its file is still there, and nobody listens."""
    bound_for_owner(path, backlog=1).close()

    with bound_for_owner(path, backlog=1), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
