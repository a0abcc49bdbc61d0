"""Redis Streams that update views: read, write, then acknowledge.

An entry is acknowledged after its row is written, so control may die at any point: entries that
were handed out and not acknowledged are handed out again, and writing one twice is harmless,
because the newer row stays. What does not fit goes to `STREAM.rejected` before it is acknowledged.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from feature_cache.errors import StoreRefused, Unavailable
from feature_cache.ingest import EVENT_TIME
from feature_cache.store import RemoteStore
from feature_cache.views import FeatureView
from serving.control.features.writer import FeatureWriter
from serving.errors import StoreUnavailable

__all__ = ["FeatureStreams"]

_GROUP: Final = b"sluice"
_CONSUMER: Final = b"control"
"""One name for every control process: whoever comes next takes over what the last one left."""

_ENTRIES: Final = b"500"
_BLOCK_MS: Final = b"200"
"""Shorter than the connection's heartbeat may wait behind it."""
_KEPT_REJECTS: Final = b"10000"
_IDLE_SECONDS: Final = 0.5
_LAG_SECONDS: Final = 2.0
_LOG = logging.getLogger("features")

_Entry = tuple[bytes, list[bytes] | None]


class FeatureStreams:
    """Reads the streams of all views over a connection of its own, which may block.

    Args:
        writer: writes rows; its address is where the streams are.
    """

    def __init__(self, writer: FeatureWriter) -> None:
        self._writer = writer
        self._store = RemoteStore(writer.address, tracking=False)
        self._grouped: set[bytes] = set()
        self._cursors: dict[bytes, bytes] = {}
        self._told = ""

    async def keep(self) -> None:
        """Read for as long as there are views with streams; never returns."""
        self._store.link.start()
        look_at = 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                views = self._views()
                try:
                    idle = not views or not await self._round(views)
                    if loop.time() >= look_at:
                        look_at = loop.time() + _LAG_SECONDS
                        await self._measure(views)
                    self._told = ""
                except (Unavailable, StoreRefused, StoreUnavailable) as error:
                    self._failed(str(error))
                    idle = True
                if idle:
                    await asyncio.sleep(_IDLE_SECONDS if not views or self._told else 0.0)
        finally:
            await self._store.link.close()

    def _views(self) -> dict[bytes, FeatureView]:
        return {
            view.stream.encode(): view
            for view in self._writer.views.values()
            if view.stream is not None
        }

    def _failed(self, words: str) -> None:
        """Begin again with what was handed out and not acknowledged."""
        self._cursors.clear()
        self._grouped.clear()
        if words != self._told:
            self._told = words
            _LOG.warning("the feature streams wait: %s", words)

    async def _round(self, views: Mapping[bytes, FeatureView]) -> bool:
        """Read each stream once; true if anything came."""
        for stream in views.keys() - self._grouped:
            await self._group(stream)
        cursors = {stream: self._cursors.get(stream, b"0") for stream in views}
        block = (b"BLOCK", _BLOCK_MS) if set(cursors.values()) == {b">"} else ()
        reply = await self._store.call(
            *(b"XREADGROUP", b"GROUP", _GROUP, _CONSUMER, b"COUNT", _ENTRIES, *block),
            *(b"STREAMS", *cursors.keys(), *cursors.values()),
        )
        found: dict[bytes, list[_Entry]] = reply or {}
        for stream, cursor in cursors.items():
            entries = found.get(stream, [])
            if entries:
                await self._take(stream, views[stream], entries)
            elif cursor != b">":
                self._cursors[stream] = b">"  # nothing is left of what was handed out before
        return any(found.values())

    async def _group(self, stream: bytes) -> None:
        try:
            await self._store.call(b"XGROUP", b"CREATE", stream, _GROUP, b"0", b"MKSTREAM")
        except StoreRefused as error:
            if error.code != "BUSYGROUP":  # it is there already
                raise
        self._grouped.add(stream)

    async def _take(self, stream: bytes, view: FeatureView, entries: list[_Entry]) -> None:
        """Write what fits, put the rest aside, acknowledge all."""
        rows, numbers, bad = [], [], []
        for number, (entry_id, fields) in enumerate(entries):
            try:
                row = _row(entry_id, fields)
            except ValueError as error:
                bad.append((number, str(error)))
            else:
                if row is not None:  # None: trimmed away while it was waiting
                    rows.append(row)
                    numbers.append(number)
        fit, _, rejects = self._writer.check(view, rows)
        bad += [(numbers[reject.row], reject.reason) for reject in rejects]
        if len(fit):
            await self._writer.write(view, fit, "stream")
        for number, reason in bad:
            await self._set_aside(stream, entries[number], reason)
        if bad:
            self._writer.counts[view.view, "stream", "rejected"] += len(bad)
            _LOG.warning(
                "%d entries of the stream %s do not fit the view %s, the first because %s; "
                "they are in %s.rejected",
                len(bad), view.stream, view.view, bad[0][1], view.stream,
            )  # fmt: skip
        await self._store.call(b"XACK", stream, _GROUP, *(entry_id for entry_id, _ in entries))

    async def _set_aside(self, stream: bytes, entry: _Entry, reason: str) -> None:
        entry_id, fields = entry
        await self._store.call(
            *(b"XADD", stream + b".rejected", b"MAXLEN", b"~", _KEPT_REJECTS, b"*"),
            *(b"id", entry_id, b"reason", reason.encode(), *(fields or ())),
        )

    async def _measure(self, views: Mapping[bytes, FeatureView]) -> None:
        """Ask how many entries wait."""
        lag = {}
        for stream, view in views.items():
            for group in await self._store.call(b"XINFO", b"GROUPS", stream):
                if group[b"name"] == _GROUP:
                    # The server cannot always tell; then at least what is handed out counts.
                    lag[view.view] = (group.get(b"lag") or 0) + group[b"pending"]
        self._writer.lag = lag


def _row(entry_id: bytes, fields: list[bytes] | None) -> Any:
    """An entry's row; without a time of its own it was true when it was added.

    Raises:
        ValueError: no field `row`, or no JSON in it.
    """
    if fields is None:
        return None
    try:
        text = dict(zip(fields[::2], fields[1::2], strict=True))[b"row"]
    except KeyError:
        raise ValueError("the entry has no field `row`") from None
    try:
        row = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"`row` is no JSON: {error}") from None
    if isinstance(row, dict):
        row.setdefault(EVENT_TIME, int(entry_id.partition(b"-")[0]))
    return row
