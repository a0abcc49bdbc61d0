"""The one seam to the outside: what a feature store can be asked, and the real one.

`memory.MemoryStore` is its twin; one suite proves both.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from feature_cache.address import Address
from feature_cache.codec import TOMBSTONE
from feature_cache.connection import Deliver, command
from feature_cache.errors import StoreRefused
from feature_cache.keys import HashKey
from feature_cache.link import Link
from feature_cache.single import Single

__all__ = ["RemoteStore", "Store", "Write"]

Invalidate = Callable[[Sequence[bytes] | None], None]

# KEYS: rows. ARGV: a blob and a lifetime in milliseconds for each. Bytes 9 to 16 of a blob are
# its event time, big-endian, so that comparing them as strings compares times (`codec`). What is
# there is read at once, which is a third of the time; `lately` is for a key that comes twice.
_NEWEST_WINS: Final = b"""
local taken, call, sub = {}, redis.call, string.sub
for first = 1, #KEYS, 1000 do
  local last = math.min(first + 999, #KEYS)
  local there, lately = call('MGET', unpack(KEYS, first, last)), {}
  for i = first, last do
    local key, blob = KEYS[i], ARGV[2 * i - 1]
    local known = lately[key] or there[i - first + 1]
    if not known or sub(known, 9, 16) < sub(blob, 9, 16) then
      call('SET', key, blob, 'PX', ARGV[2 * i])
      taken[i], lately[key] = 1, blob
    else
      taken[i] = 0
    end
  end
end
return taken
"""

# KEYS: rows. ARGV: a tombstone and its lifetime. A row from the future is erased too: the
# tombstone takes over its time. Returns 1 for each row that held values.
_ERASE: Final = b"""
local held = {}
for i, key in ipairs(KEYS) do
  local blob, known = ARGV[1], redis.call('GETRANGE', key, 0, 15)
  held[i] = 0
  if known ~= '' then
    if math.floor(string.byte(known, 2)) % 2 == 0 then held[i] = 1 end
    if string.sub(known, 9, 16) > string.sub(blob, 9, 16) then
      blob = string.sub(blob, 1, 8) .. string.sub(known, 9, 16)
    end
  end
  redis.call('SET', key, blob, 'PX', ARGV[2])
end
return held
"""
assert TOMBSTONE == 1  # the script asks whether the flags are odd

_PATIENCE_SECONDS: Final = 5.0


class Write(msgspec.Struct, frozen=True, gc=False):
    """One row to be written. `lifetime_ms` is how long the store keeps it, at least 1."""

    key: bytes
    blob: bytes
    lifetime_ms: int


class Store(Protocol):
    """Rows by key. Reading is by callback, so that a reply can be kept while it is parsed."""

    def mget(self, keys: Sequence[bytes], deliver: Deliver) -> None:
        """Read rows; `deliver` gets a list (None where there is no row) or an exception."""
        ...

    def mget_one(self, single: Single, value: int, deliver: Deliver) -> None:
        """`mget` of `single.keys(value)`."""
        ...

    def hmget(self, key: HashKey, deliver: Deliver) -> None:
        """Read `key.fields` of a hash; `deliver` gets as many values or an exception."""
        ...

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """Write each row that is newer than what is there; say which were.

        Raises:
            Unavailable: no answer; some may have been written. StoreRefused: the store's error.
        """
        ...

    async def erase(self, keys: Sequence[bytes], blob: bytes, lifetime_ms: int) -> list[bool]:
        """Put a tombstone in place of each row; say which held values. Raises as `write`."""
        ...

    async def put_schema(self, key: bytes, schema_id: bytes, described: bytes) -> None:
        """Remember a field list. Raises as `write`."""
        ...

    async def schemas(self, key: bytes) -> dict[bytes, bytes]:
        """Every field list of a view, by schema id. Raises as `write`."""
        ...

    async def scan(self, pattern: bytes) -> list[bytes]:
        """Every key that matches a glob whose only special sign is `*`. Raises as `write`."""
        ...

    def watch(self, invalidate: Invalidate, connected: Callable[[], None]) -> None:
        """Have changes of rows that were read announced (None: all of them), and new starts."""
        ...


class RemoteStore:
    """Redis or Valkey 7 and later, over one connection.

    Args:
        address: see `Address.parse`.
        tracking: ask for announcements; only a near cache needs them.
    """

    def __init__(self, address: Address, *, tracking: bool = True) -> None:
        self._invalidate: Invalidate = lambda _: None
        self._connected: Callable[[], None] = lambda: None
        self.link = Link(
            address,
            on_invalid=self._announced if tracking else None,
            on_connect=self._began,
        )
        self._scripts: dict[bytes, bytes] = {}

    def _announced(self, keys: Sequence[bytes] | None) -> None:
        self._invalidate(keys)

    def _began(self) -> None:
        self._connected()

    def watch(self, invalidate: Invalidate, connected: Callable[[], None]) -> None:
        """See `Store.watch`."""
        self._invalidate, self._connected = invalidate, connected

    def mget(self, keys: Sequence[bytes], deliver: Deliver) -> None:
        """See `Store.mget`. One command, whatever the number of keys."""
        self.link.submit(command(b"MGET", *keys), deliver)

    def mget_one(self, single: Single, value: int, deliver: Deliver) -> None:
        """See `Store.mget_one`."""
        self.link.submit(single.command(value), deliver)

    def hmget(self, key: HashKey, deliver: Deliver) -> None:
        """See `Store.hmget`."""
        self.link.submit(command(b"HMGET", key, *key.fields), deliver)

    async def write(self, writes: Sequence[Write]) -> list[bool]:
        """See `Store.write`. One script for the whole batch."""
        if not writes:
            return []
        arguments = [part for one in writes for part in (one.blob, b"%d" % one.lifetime_ms)]
        taken = await self._script(_NEWEST_WINS, [one.key for one in writes], arguments)
        return [bool(one) for one in taken]

    async def erase(self, keys: Sequence[bytes], blob: bytes, lifetime_ms: int) -> list[bool]:
        """See `Store.erase`."""
        if not keys:
            return []
        held = await self._script(_ERASE, keys, [blob, b"%d" % lifetime_ms])
        return [bool(one) for one in held]

    async def put_schema(self, key: bytes, schema_id: bytes, described: bytes) -> None:
        """See `Store.put_schema`."""
        await self.link.call(b"HSET", key, schema_id.hex().encode(), described)

    async def schemas(self, key: bytes) -> dict[bytes, bytes]:
        """See `Store.schemas`."""
        found = await self.link.call(b"HGETALL", key)
        return {bytes.fromhex(schema_id.decode()): text for schema_id, text in found.items()}

    async def scan(self, pattern: bytes) -> list[bytes]:
        """See `Store.scan`. Walks through all of the server's keys, some at a time."""
        found: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, some = await self.link.call(
                b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"1000", patience=_PATIENCE_SECONDS
            )
            found.update(some)
            if cursor == b"0":
                return sorted(found)

    async def _script(
        self, source: bytes, keys: Sequence[bytes], arguments: Sequence[bytes]
    ) -> list[int]:
        """Run a script by its digest; send it whole to a server that does not know it."""
        operands = (b"%d" % len(keys), *keys, *arguments)
        digest = self._scripts.get(source)
        if digest is None:
            loaded: bytes = await self.link.call(
                b"SCRIPT", b"LOAD", source, patience=_PATIENCE_SECONDS
            )
            digest = self._scripts[source] = loaded
        try:
            reply = await self.link.call(b"EVALSHA", digest, *operands, patience=_PATIENCE_SECONDS)
        except StoreRefused as error:
            if error.code != "NOSCRIPT":
                raise
            reply = await self.link.call(b"EVAL", source, *operands, patience=_PATIENCE_SECONDS)
        answers: list[int] = reply
        return answers

    async def call(self, *words: bytes, patience: float = _PATIENCE_SECONDS) -> Any:
        """Any other command. Raises StoreRefused, Unavailable."""
        return await self.link.call(*words, patience=patience)
