"""Requests whose version is not drawn: by a header, by who calls, or by whom they are about."""

from collections.abc import Mapping, Sequence

import msgspec

from serving.config.schema import Override
from serving.errors import PermissionDenied
from serving.types import Principal

__all__ = ["Match", "Overrides"]


class Match(msgspec.Struct, frozen=True, gc=False):
    """What an override says: the version, and whether a rollout counts the request all the same."""

    version: str
    analysed: bool


class _Rule(msgspec.Struct, frozen=True):
    """One override, of one kind: `header` with `roles`, `tenants`, or `keys`."""

    header: str
    roles: tuple[str, ...]
    tenants: frozenset[str]
    keys: frozenset[bytes]
    match: Match


class Overrides:
    """A plan's overrides, compiled; the first that applies wins."""

    __slots__ = ("_rules", "beyond_headers", "by_key", "headers")

    def __init__(self, overrides: Sequence[Override], production: str) -> None:
        self._rules = tuple(_compiled(one, production) for one in overrides)
        self.headers = tuple(rule.header for rule in self._rules if rule.header)
        """Headers that must be read for them."""

        self.by_key = any(rule.keys for rule in self._rules)
        """Whether one looks at the assignment key."""

        self.beyond_headers = any(not rule.header for rule in self._rules)
        """Whether one can apply to a request without headers."""

    def __bool__(self) -> bool:
        return bool(self._rules)

    def find(
        self, headers: Mapping[str, str], principal: Principal, key: bytes | None
    ) -> Match | None:
        """Say what overrides the draw for this request; None if nothing does.

        Raises:
            PermissionDenied: it has an override's header, and the caller none of its roles.
        """
        for rule in self._rules:
            if rule.header:
                wanted = headers.get(rule.header)
                if wanted:
                    if principal.roles.isdisjoint(rule.roles):
                        raise PermissionDenied(
                            f"header '{rule.header}' needs one of the roles {', '.join(rule.roles)}"
                        )
                    return Match(wanted, rule.match.analysed)
            elif key in rule.keys if rule.keys else principal.tenant in rule.tenants:
                return rule.match
        return None


def _compiled(one: Override, production: str) -> _Rule:
    by_header = not one.tenants and not one.entities
    return _Rule(
        header=one.header if by_header else "",
        roles=tuple(one.roles),
        tenants=frozenset(one.tenants),
        # As in `serving.traffic.split`: decimal text of an integer, UTF-8 of a string.
        keys=frozenset(str(entity).encode() for entity in one.entities),
        match=Match(one.version or production, one.analysed),
    )
