from pathlib import Path
from typing import Any

import pytest

from serving.config.identity import ANONYMOUS, hash_token
from serving.control.admin.access import (
    ADMIN_TOKEN_NAME,
    Access,
    check_host,
    check_origin,
    ensure_admin_token,
)
from serving.errors import InvalidConfig, InvalidRequest, PermissionDenied, Unauthenticated
from serving.types import Principal


def tokens_file(folder: Path, **roles: str) -> Path:
    """A token file in which each name's token is its name twice."""
    path = folder / "tokens.yaml"
    lines = [
        f"  - {{name: {name}, sha256: {hash_token(name * 2)}, roles: [{role}]}}"
        for name, role in roles.items()
    ]
    path.write_text("tokens:\n" + "\n".join(lines) + "\n")
    return path


def bearer(token: str) -> str:
    """An Authorization header value."""
    return f"Bearer {token}"


def admit(access: Access, authorization: str | None, need: Any) -> Principal:
    """Identify and allow, as every call does."""
    principal = access.identify(authorization, need)
    access.allow(principal, need)
    return principal


@pytest.fixture
def access(tmp_path: Path) -> Access:
    """Tokens of all three roles, on loopback."""
    tokens = tokens_file(tmp_path, app="infer", ops="operator", boss="admin")
    return Access(admin_token="made", tokens=tokens, loopback=True)


def test_the_first_start_makes_a_token_for_its_owner_only(tmp_path: Path) -> None:
    """It is long, random, in a file of mode 0600, and the same at the next start."""
    path = tmp_path / "admin.token"
    token = ensure_admin_token(path)

    assert len(token) > 40
    assert path.stat().st_mode & 0o777 == 0o600
    assert ensure_admin_token(path) == token
    assert ensure_admin_token(tmp_path / "other.token") != token


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """A leaked token must be noticed, not used."""
    path = tmp_path / "admin.token"
    ensure_admin_token(path)
    path.chmod(mode)

    with pytest.raises(InvalidConfig, match="chmod 600"):
        ensure_admin_token(path)


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    """An empty file must not become an empty password."""
    path = tmp_path / "admin.token"
    path.touch(mode=0o600)

    with pytest.raises(InvalidConfig, match="empty"):
        ensure_admin_token(path)


def test_a_token_behind_a_link_is_refused(tmp_path: Path) -> None:
    """Nobody points us at a file of their own."""
    real = tmp_path / "real"
    real.write_text("known")
    real.chmod(0o600)
    (tmp_path / "admin.token").symlink_to(real)

    with pytest.raises(OSError, match="symbolic"):
        ensure_admin_token(tmp_path / "admin.token")


@pytest.mark.parametrize(
    ("who", "read", "admin"),
    [("app", False, False), ("ops", True, False), ("boss", True, True), ("made", True, True)],
)
def test_roles_decide_when_tokens_are_configured(
    access: Access, who: str, read: bool, admin: bool
) -> None:
    """Reading needs operator, changing needs admin, the token of the first start is an admin."""
    token = who if who == "made" else who * 2
    for need, allowed in (("read", read), ("admin", admin)):
        if allowed:
            name = ADMIN_TOKEN_NAME if who == "made" else who
            assert admit(access, bearer(token), need).name == name
        else:
            with pytest.raises(PermissionDenied):
                admit(access, bearer(token), need)


@pytest.mark.parametrize("authorization", [None, "Bearer no", "Basic bWFkZQ==", "made", "Bearer "])
def test_without_a_known_token_nothing_but_health_is_open(
    access: Access, authorization: str | None
) -> None:
    """Health needs no credential; everything else does where tokens are configured."""
    assert admit(access, authorization, "open") == ANONYMOUS
    for need in ("read", "admin"):
        with pytest.raises(Unauthenticated):
            admit(access, authorization, need)


def test_reading_is_open_on_loopback_without_tokens_and_changing_is_not() -> None:
    """A laptop needs no token to look, and always one to change something."""
    access = Access(admin_token="made", tokens=None, loopback=True)

    assert admit(access, None, "read") == ANONYMOUS
    with pytest.raises(Unauthenticated):
        admit(access, None, "admin")
    with pytest.raises(Unauthenticated):
        admit(access, bearer("wrong"), "read")


def test_reading_beyond_loopback_needs_a_token() -> None:
    """A listener that others reach shows nothing to strangers."""
    access = Access(admin_token="made", tokens=None, loopback=False)

    with pytest.raises(Unauthenticated):
        admit(access, None, "read")
    assert admit(access, bearer("made"), "read").name == ADMIN_TOKEN_NAME


def test_an_edited_token_file_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """A revoked token stops working; a mistake in the file locks nobody out."""
    path = tokens_file(tmp_path, ann="admin")
    access = Access(admin_token="made", tokens=path, loopback=True)
    tokens_file(tmp_path, bobby="admin")
    access.refresh()

    assert admit(access, bearer("bobbybobby"), "admin").name == "bobby"
    with pytest.raises(Unauthenticated):
        admit(access, bearer("annann"), "admin")

    path.write_text("tokens: [nonsense, and more of it]")
    access.refresh()
    assert admit(access, bearer("bobbybobby"), "admin").name == "bobby"


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8002", "localhost:8002", "LOCALHOST", "[::1]:8002", "10.1.2.3", "gw.lan:8002"],
)
def test_our_own_names_are_served(host: str) -> None:
    """Addresses, localhost and the configured name are ours."""
    assert check_host([host], "gw.lan") == host


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "1.2.3",
        "gw.lan.evil",
    ],
)
def test_a_rebound_name_is_refused(host: str) -> None:
    """A page's own name that resolves to this machine does not get in."""
    with pytest.raises(PermissionDenied):
        check_host([host], "gw.lan")


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost", "evil"]])
def test_exactly_one_host_is_needed(hosts: list[str]) -> None:
    """Two Host headers are two truths."""
    with pytest.raises(InvalidRequest):
        check_host(hosts, "gw.lan")


def test_only_our_own_origin_may_send_verbs() -> None:
    """Pages of others, of another port or scheme, and of no origin are refused."""
    check_origin([], "localhost:8002", tls=False)
    check_origin(["http://localhost:8002"], "localhost:8002", tls=False)
    check_origin(["https://localhost:8002"], "localhost:8002", tls=True)
    for foreign in ("http://evil", "null", "https://localhost:8002", "http://localhost", ""):
        with pytest.raises(PermissionDenied):
            check_origin([foreign], "localhost:8002", tls=False)
