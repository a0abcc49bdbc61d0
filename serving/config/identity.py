"""Who is calling, and what they may do: a table of token hashes, decided without I/O.

Roles include the ones before them: `admin` ⊃ `operator` ⊃ `infer`. Both the data port and
the admin port use this table.
"""

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final, Protocol

from serving.config.schema import TokenEntry
from serving.errors import PermissionDenied, Unauthenticated
from serving.types import Principal, Role

__all__ = [
    "ANONYMOUS",
    "IdentityTable",
    "OpenTable",
    "TokenTable",
    "hash_token",
    "new_token",
    "require",
]

_INCLUDED: Final[dict[str, frozenset[str]]] = {
    "infer": frozenset({"infer"}),
    "operator": frozenset({"infer", "operator"}),
    "admin": frozenset({"infer", "operator", "admin"}),
}
_MAX_TOKEN_CHARACTERS: Final = 4096

ANONYMOUS: Final = Principal(name="anonymous", roles=_INCLUDED["infer"])
"""Everybody, where no tokens are configured."""


class IdentityTable(Protocol):
    """What turns a credential into a principal."""

    def identify(self, authorization: str | None) -> Principal:
        """Name the caller behind an Authorization header value. Raises Unauthenticated."""
        ...


class TokenTable:
    """The credentials of `tokens.yaml`: bearer tokens, of which only SHA-256 is known.

    Where two entries carry the same hash the later one wins; `sluice check` refuses that.
    """

    def __init__(self, principals: dict[str, Principal]) -> None:
        self._principals = principals

    @classmethod
    def from_entries(cls, entries: Sequence[TokenEntry]) -> "TokenTable":
        """Build the table; each role is widened to those it includes."""
        return cls(
            {
                entry.sha256: Principal(
                    name=entry.name,
                    roles=frozenset().union(*(_INCLUDED[role] for role in entry.roles)),
                    tenant=entry.tenant,
                )
                for entry in entries
            }
        )

    def identify(self, authorization: str | None) -> Principal:
        """Name the caller behind an Authorization header value (`Bearer TOKEN`).

        Raises:
            Unauthenticated: no credential, another scheme, or a token nobody issued. The
                message never repeats what was sent.
        """
        # A look-up may take longer for some keys than for others, but its key is a SHA-256 of
        # what was sent. To learn anything from the timing a guesser would have to choose
        # digests, which means inverting SHA-256; the token itself is compared with nothing.
        principal = self._principals.get(hash_token(_bearer(authorization)))
        if principal is not None:
            return principal
        raise Unauthenticated("the bearer token is not known here")


class OpenTable:
    """The table where no tokens are configured: everybody is `anonymous` and may infer.

    A caller who does present a credential is looked up in `known` (the token made on first
    start), so that a wrong token is noticed rather than quietly treated as no token.
    """

    def __init__(self, known: IdentityTable | None = None) -> None:
        self._known = known

    def identify(self, authorization: str | None) -> Principal:
        """Name the caller. Raises Unauthenticated only for a credential `known` refuses."""
        if authorization is None or self._known is None:
            return ANONYMOUS
        return self._known.identify(authorization)


def require(principal: Principal, role: Role) -> None:
    """Raise PermissionDenied unless the principal holds `role`."""
    if role not in principal.roles:
        raise PermissionDenied(f"`{principal.name}` does not have the role `{role}`")


def hash_token(token: str) -> str:
    """SHA-256 of a token in lower-case hex, as `tokens.yaml` stores it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token() -> str:
    """Draw a token: 256 random bits, URL-safe, with a prefix that secret scanners can find."""
    return "sluice_" + secrets.token_urlsafe(32)


def _bearer(authorization: str | None) -> str:
    if authorization is None:
        raise Unauthenticated("a credential is needed: send `Authorization: Bearer TOKEN`")
    scheme, _, token = authorization.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token or len(token) > _MAX_TOKEN_CHARACTERS:
        raise Unauthenticated("the Authorization header must read `Bearer TOKEN`")
    return token
