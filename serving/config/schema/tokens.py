"""`tokens.yaml`: who may call."""

from typing import Annotated, Literal

from msgspec import Meta

from serving.config.section import Name, Section, Sha256

__all__ = [
    "TokenEntry",
    "TokensFile",
]


class TokenEntry(Section, frozen=True, kw_only=True):
    """One credential. The token itself is never stored."""

    name: Name
    """Who it belongs to; appears in audits and logs."""

    sha256: Sha256
    """SHA-256 of the token, in hex: `printf %s "$TOKEN" | sha256sum`."""

    roles: Annotated[list[Literal["infer", "operator", "admin"]], Meta(min_length=1)]
    """`infer` calls models, `operator` may also override routing, `admin` may change things.
    Each includes the ones before it."""

    tenant: Name | None = None
    """On whose behalf it calls, for `traffic.overrides`. Absent: nobody's in particular."""


class TokensFile(Section, frozen=True, kw_only=True):
    """The file that `auth.tokens` names."""

    tokens: Annotated[list[TokenEntry], Meta(min_length=1)]
    """Every credential the gateway accepts."""
