"""Whether a directory's candidates may answer: what the journal and a comparison say of them.

The rule itself is `candidates`; the comparison is `serving.control.training.candidate_gate`.
"""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from serving.control.publishing.candidates import Place, shadows, unseen
from serving.control.publishing.compile import Compiled
from serving.control.publishing.publication import Publication
from serving.errors import InvalidConfig

__all__ = ["CandidateReview", "Gate"]

Gate = Callable[[str, str, float], Awaitable[list[str]]]
"""Model, digest, since when it is a shadow → warnings. Raises InvalidConfig."""


class CandidateReview:
    """Looks at what a directory would have answer, before it is published.

    Args:
        publication: what is served, and the journal of what was.
    """

    def __init__(self, publication: Publication) -> None:
        self._publication = publication
        self.gate: Gate | None = None
        """Compares a candidate with production before it answers anybody; None: nobody does."""

    async def refuse_unseen(self, compiled: Compiled) -> None:
        """Refuse a candidate that gets answers to give before it was a shadow.

        Raises:
            InvalidConfig: with a problem for each.
        """
        if not (wanted := self._unseen(compiled)):
            return
        seen = await asyncio.to_thread(self._shadow_since, set(wanted))
        if problems := [words for place, words in wanted.items() if place not in seen]:
            raise InvalidConfig(problems[0], tuple(problems))

    async def compare(self, compiled: Compiled) -> Compiled:
        """Have candidates that are to answer compared with what does now; add the warnings.

        Raises:
            InvalidConfig: one does worse.
        """
        if self.gate is None or not (wanted := self._unseen(compiled)):
            return compiled
        since = await asyncio.to_thread(self._shadow_since, set(wanted))
        warnings = [
            warning
            for (model, sha256), at in since.items()
            for warning in await self.gate(model, sha256, at)
        ]
        return replace(compiled, warnings=[*compiled.warnings, *warnings])

    def _unseen(self, compiled: Compiled) -> dict[Place, str]:
        return unseen(compiled.configuration.models, compiled.staged, self._publication.current)

    def _shadow_since(self, places: set[Place]) -> dict[Place, float]:
        """When each was a shadow first, seconds since 1970; without those that never were.

        Reads the disk.
        """
        since: dict[Place, float] = {}
        journal = self._publication.journal
        for entry in journal.newest(len(journal.revisions)):
            for place in shadows(entry.snapshot):
                if place in places:
                    since.setdefault(place, entry.at)
        return since
