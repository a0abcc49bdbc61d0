"""Who is calling, and what they may do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config.identity import (
    ANONYMOUS,
    OpenTable,
    TokenTable,
    hash_token,
    new_token,
    require,
)
from serving.config.schema import TokenEntry
from serving.errors import PermissionDenied, Unauthenticated

TOKENS = {"web": "token-of-web", "ops": "token-of-ops", "root": "token-of-root"}
ROLES = {"web": "infer", "ops": "operator", "root": "admin"}


@pytest.fixture
def table() -> TokenTable:
    """Three credentials, one per role."""
    return TokenTable.from_entries(
        [
            TokenEntry(name=name, sha256=hash_token(token), roles=[ROLES[name]])
            for name, token in TOKENS.items()
        ]
    )


@pytest.mark.parametrize(
    ("name", "allowed", "denied"),
    [
        ("web", ["infer"], ["operator", "admin"]),
        ("ops", ["infer", "operator"], ["admin"]),
        ("root", ["infer", "operator", "admin"], []),
    ],
)
def test_a_role_includes_the_roles_before_it(
    table: TokenTable, name: str, allowed: list[str], denied: list[str]
) -> None:
    """A token does everything up to its role and nothing above."""
    principal = table.identify(f"Bearer {TOKENS[name]}")

    assert principal.name == name
    for role in allowed:
        require(principal, role)
    for role in denied:
        with pytest.raises(PermissionDenied, match=role):
            require(principal, role)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(table: TokenTable, scheme: str) -> None:
    """HTTP authentication schemes are case-insensitive (RFC 9110, section 11.1)."""
    assert table.identify(f"{scheme} {TOKENS['web']}").name == "web"


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic dG9rZW4tb2Ytd2Vi",
        "token-of-web",
        "Bearer token-of-we",
        "Bearer TOKEN-OF-WEB",
        "Bearer " + "x" * 5000,
        "Bearer \udcff\udcfe",
        f"Bearer {hash_token('token-of-web')}",
    ],
)
def test_anything_but_a_known_token_is_refused(
    table: TokenTable, authorization: str | None
) -> None:
    """No credential, another scheme, a near miss and the stored hash itself are all refused."""
    with pytest.raises(Unauthenticated):
        table.identify(authorization)


@given(st.text())
def test_a_refusal_never_repeats_the_credential(secret: str) -> None:
    """Whatever was sent, the error is one of a fixed few texts."""
    table = TokenTable.from_entries([])

    with pytest.raises(Unauthenticated) as refused:
        table.identify(f"Bearer {secret}")

    assert refused.value.message in {
        "the bearer token is not known here",
        "the Authorization header must read `Bearer TOKEN`",
    }


def test_without_tokens_everybody_may_infer_and_nothing_else() -> None:
    """The open table gives the lowest role only."""
    principal = OpenTable().identify(None)

    assert principal == ANONYMOUS
    require(principal, "infer")
    for role in ("operator", "admin"):
        with pytest.raises(PermissionDenied):
            require(principal, role)


def test_an_open_table_notices_a_wrong_token(table: TokenTable) -> None:
    """On an open port a credential still counts: a known one is honoured, another refused."""
    opened = OpenTable(table)

    assert opened.identify(None) == ANONYMOUS
    assert opened.identify(f"Bearer {TOKENS['root']}").name == "root"
    with pytest.raises(Unauthenticated):
        opened.identify("Bearer wrong")


def test_several_roles_add_up() -> None:
    """An entry with two roles may do what either allows."""
    entry = TokenEntry(name="both", sha256=hash_token("t"), roles=["infer", "admin"])

    principal = TokenTable.from_entries([entry]).identify("Bearer t")

    assert principal.roles == {"infer", "operator", "admin"}


def test_new_tokens_differ_and_fit_in_a_header() -> None:
    """Each token is fresh, carries the prefix, and survives a Bearer header."""
    first, second = new_token(), new_token()
    table = TokenTable.from_entries(
        [TokenEntry(name="fresh", sha256=hash_token(first), roles=["infer"])]
    )

    assert first != second
    assert first.startswith("sluice_")
    assert table.identify(f"Bearer {first}").name == "fresh"
