"""The store's twin in this process: the same answers, no server. For tests and small set-ups."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from feature_cache.codec import HEADER_BYTES, TOMBSTONE
from feature_cache.connection import Deliver
from feature_cache.errors import Unavailable
from feature_cache.keys import HashKey
from feature_cache.single import Single
from feature_cache.store import Invalidate, Write

__all__ = ["MemoryStore"]

_TIME: Final = slice(8, 16)


class MemoryStore:
    """Rows in a dictionary. `down` makes it unreachable.

    Args:
        now: monotonic seconds, for lifetimes.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.down = False
        self._now = now
        self._rows: dict[bytes, tuple[bytes, float]] = {}
        self._schemas: dict[bytes, dict[bytes, bytes]] = {}
        self._hashes: dict[bytes, dict[bytes, bytes]] = {}
        self._read: set[bytes] = set()
        self._invalidate: Invalidate = lambda _: None

    def watch(self, invalidate: Invalidate, connected: Callable[[], None]) -> None:
        """See `Store.watch`. It is always connected."""
        self._invalidate = invalidate
        connected()

    def mget_one(self, single: Single, value: int, deliver: Deliver) -> None:
        """See `Store.mget_one`."""
        self.mget(single.keys(value), deliver)

    def mget(self, keys: Sequence[bytes], deliver: Deliver) -> None:
        """See `Store.mget`. Answers in a later turn of the loop, as a server would."""

        def answer() -> None:
            if self.down:
                deliver(Unavailable("the memory store is down"))
                return
            self._read.update(keys)
            deliver([self._row(key) for key in keys])

        asyncio.get_running_loop().call_soon(answer)

    def hmget(self, key: HashKey, deliver: Deliver) -> None:
        """See `Store.hmget`."""

        def answer() -> None:
            if self.down:
                deliver(Unavailable("the memory store is down"))
                return
            self._read.add(bytes(key))
            values = self._hashes.get(bytes(key), {})
            deliver([values.get(field) for field in key.fields])

        asyncio.get_running_loop().call_soon(answer)

    def hset(self, key: bytes, values: Mapping[bytes, bytes]) -> None:
        """Write fields of a hash, as Feast does."""
        self._hashes.setdefault(key, {}).update(values)
        if key in self._read:
            self._read.discard(key)
            self._invalidate([key])

    def _row(self, key: bytes) -> bytes | None:
        blob, gone_at = self._rows.get(key, (None, 0.0))
        return blob if blob is not None and self._now() < gone_at else None

    def _set(self, key: bytes, blob: bytes, lifetime_ms: int) -> None:
        self._rows[key] = blob, self._now() + lifetime_ms / 1e3
        if key in self._read:
            self._read.discard(key)
            self._invalidate([key])

    def _check(self) -> None:
        if self.down:
            raise Unavailable("the memory store is down")

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """See `Store.write`."""
        self._check()
        taken = []
        for one in writes:
            known = self._row(one.key)
            newer = known is None or known[_TIME] < one.blob[_TIME]
            if newer:
                self._set(one.key, one.blob, one.lifetime_ms)
            taken.append(newer)
        return taken

    async def erase(self, keys: Sequence[bytes], blob: bytes, lifetime_ms: int) -> list[bool]:
        """See `Store.erase`."""
        self._check()
        held = []
        for key in keys:
            known = self._row(key)
            held.append(known is not None and not known[1] & TOMBSTONE)
            latest = max(blob[_TIME], known[_TIME]) if known is not None else blob[_TIME]
            self._set(key, blob[:8] + latest + blob[HEADER_BYTES:], lifetime_ms)
        return held

    async def put_schema(self, key: bytes, schema_id: bytes, described: bytes) -> None:
        """See `Store.put_schema`."""
        self._check()
        self._schemas.setdefault(key, {})[schema_id] = described

    async def schemas(self, key: bytes) -> dict[bytes, bytes]:
        """See `Store.schemas`."""
        self._check()
        return dict(self._schemas.get(key, {}))

    async def scan(self, pattern: bytes) -> list[bytes]:
        """See `Store.scan`."""
        self._check()
        wanted = re.compile(b".*".join(map(re.escape, pattern.split(b"*"))) + rb"\Z", re.DOTALL)
        return sorted(key for key in self._rows if wanted.match(key) and self._row(key))

    def flush(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self._rows.clear()
        self._hashes.clear()
        self._schemas.clear()
        self._read.clear()
        self._invalidate(None)
