"""Evidence of rollouts in the store: what workers wrote, what is confirmed, and a second book.

    sluice:evidence:ID        hash, incarnation to `Unfolded`; written by workers
    sluice:folded:ID          hash, incarnation to the number of its last batch that is in the book
    sluice:rollout:ID:book    the book's counts as JSON, to be looked at
    sluice:rollout:ID:picture the whole book as it was once
    sluice:rollout:ID:frames  list: what was added since
    sluice:rollout:ID:mark    the position of the last frame in either, in decimal

All but the first are written by control, in one transaction, after its disk has the same. So the
mark tells whether the store is behind (it was emptied, or put back), and a control that has lost
its disk goes on from picture and frames.
"""

from collections.abc import Callable, Collection
from typing import Protocol

import msgspec

__all__ = [
    "Confirmation",
    "EvidenceIndex",
    "EvidenceStore",
    "MemoryEvidence",
    "StoredBook",
    "rollout_key",
]


def rollout_key(rollout: str, what: str) -> str:
    """Where the store has something of a rollout."""
    return f"sluice:rollout:{rollout}:{what}"


class EvidenceIndex(msgspec.Struct, frozen=True):
    """What can be read, and where the store's book is."""

    sizes: dict[str, int]
    """Incarnation to the bytes of its `Unfolded`."""

    mark: int
    """0: the store has no book."""


class StoredBook(msgspec.Struct, frozen=True):
    """The store's book: encoded by `serving.rollout.book_codec`."""

    picture: bytes
    """Empty: none yet."""

    frames: list[bytes]
    mark: int


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """What one look changes in the store.

    With a picture it replaces all that is there. Without, it adds a frame, and only to a book
    whose mark is the one before.
    """

    mark: int
    folded: dict[str, int]
    """Incarnations with new batches; with a picture: all."""

    counts: bytes
    picture: bytes = b""
    frame: bytes = b""
    """Empty: nothing is new, only `gone` is."""

    gone: tuple[str, ...] = ()
    """Incarnations that will write nothing more."""


class EvidenceStore(Protocol):
    """What control needs of the store for rollouts. Every method may raise StoreUnavailable."""

    async def index(self, rollout: str) -> EvidenceIndex:
        """Who has written evidence, and how much."""
        ...

    async def unfolded(self, rollout: str, incarnations: Collection[str]) -> dict[str, bytes]:
        """What these have written; without those that are not there any more."""
        ...

    async def confirm(self, rollout: str, confirmation: Confirmation) -> bool:
        """Tell workers what is in the book, together with the book, in one step.

        Returns:
            Whether it was written; not if the mark was another: then the whole book is needed.
        """
        ...

    async def book(self, rollout: str) -> StoredBook:
        """The store's book."""
        ...

    async def forget(self, rollout: str) -> None:
        """Remove everything of a rollout."""
        ...


class MemoryEvidence:
    """`EvidenceStore` inside this process. `written` is what workers wrote.

    Args:
        reach: raises StoreUnavailable while the store is gone.
    """

    def __init__(self, reach: Callable[[], None]) -> None:
        self._reach = reach
        self.written: dict[str, dict[str, bytes]] = {}
        self.folded: dict[str, dict[str, int]] = {}
        self.counts: dict[str, bytes] = {}
        self._books: dict[str, StoredBook] = {}

    def clear(self) -> None:
        """Lose everything."""
        for content in (self.written, self.folded, self.counts, self._books):
            content.clear()

    async def index(self, rollout: str) -> EvidenceIndex:
        """See `EvidenceStore`."""
        self._reach()
        sizes = {one: len(data) for one, data in self.written.get(rollout, {}).items()}
        return EvidenceIndex(sizes, self._book(rollout).mark)

    async def unfolded(self, rollout: str, incarnations: Collection[str]) -> dict[str, bytes]:
        """See `EvidenceStore`."""
        self._reach()
        found = self.written.get(rollout, {})
        return {one: found[one] for one in incarnations if one in found}

    async def confirm(self, rollout: str, confirmation: Confirmation) -> bool:
        """See `EvidenceStore`."""
        self._reach()
        book = self._book(rollout)
        frames = [confirmation.frame] if confirmation.frame else []
        if confirmation.picture:
            self.folded[rollout] = {}
            book = StoredBook(confirmation.picture, [], confirmation.mark)
        elif book.mark != confirmation.mark - len(frames):
            return False
        else:
            book = StoredBook(book.picture, book.frames + frames, confirmation.mark)
        self._books[rollout] = book
        self.counts[rollout] = confirmation.counts
        self.folded.setdefault(rollout, {}).update(confirmation.folded)
        for incarnation in confirmation.gone:
            self.written.get(rollout, {}).pop(incarnation, None)
        return True

    async def book(self, rollout: str) -> StoredBook:
        """See `EvidenceStore`."""
        self._reach()
        return self._book(rollout)

    async def forget(self, rollout: str) -> None:
        """See `EvidenceStore`."""
        self._reach()
        self.written.pop(rollout, None)
        self.folded.pop(rollout, None)
        self.counts.pop(rollout, None)
        self._books.pop(rollout, None)

    def _book(self, rollout: str) -> StoredBook:
        return self._books.get(rollout, StoredBook(b"", [], 0))
