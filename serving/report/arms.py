"""Versions beside each other: who they are, and how each is drawn. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from serving.drift.standing import Watched
from serving.report.svg import element, escaped

__all__ = ["Arm", "arms_of", "legend", "sorted_by_role"]

_ROLES: Final = ("production", "canary", "shadow")


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One version in one role. `css` are the classes of its colour and dashes."""

    version: str
    role: str
    css: str

    @property
    def name(self) -> str:
        """As people call it."""
        return f"{self.version} ({self.role})"


def arms_of(places: Sequence[tuple[str, str]]) -> list[Arm]:
    """Arms of (version, role), production first; each place once, in the order given.

    A role's first version has its colour; further ones have it dashed.
    """
    ordered = sorted(dict.fromkeys(places), key=lambda place: _rank(place[1]))
    seen: dict[str, int] = {}
    found = []
    for version, role in ordered:
        before = seen.setdefault(role, 0)
        seen[role] += 1
        found.append(Arm(version=version, role=role, css=_style(role, before)))
    return found


def _style(role: str, before: int = 0) -> str:
    """Classes of the style sheet for the version that so many of its role stand before."""
    return f"{role if role in _ROLES else 'other'}{' earlier' if before else ''}"


def sorted_by_role(watched: Sequence[Watched]) -> list[Watched]:
    """Production first; of one role the version that was asked last first."""
    return sorted(
        watched, key=lambda one: (_rank(one.standing.role), -(one.standing.drift.end or 0.0))
    )


def legend(arms: Sequence[Arm], *, reference: bool = False) -> str:
    """Swatches with names."""
    swatches = [("reference", "reference")] if reference else []
    swatches += [(arm.css, arm.name) for arm in arms]
    return element(
        "p",
        *(
            element("span", element("i", "\N{ZERO WIDTH SPACE}", css=css), escaped(name))
            for css, name in swatches
        ),
        css="legend",
    )


def _rank(role: str) -> int:
    return _ROLES.index(role) if role in _ROLES else len(_ROLES)
