"""The store as it really is: Redis or Valkey 7 and later, over redis-py.

redis-py's own defaults wait up to 59 s for a silent server (measured, redis-py 8.1), so every
timeout is stated here and nothing is retried inside the client: callers retry, because they
know whether it still matters.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError, WatchError
from redis.maint_notifications import MaintNotificationsConfig

from serving.config.directions import (
    Directions,
    NodeReport,
    decode_directions,
    decode_report,
    encode_directions,
)
from serving.config.keys import (
    DIRECTIONS_CHANNEL,
    DIRECTIONS_KEY,
    METRICS_KEY,
    NODES_KEY,
    ROLLOUTS_KEY,
    SNAPSHOT_CHANNEL,
    SNAPSHOT_KEY,
    WORKERS_KEY,
    WorkerReport,
    rollout_events_key,
)
from serving.config.snapshot import Snapshot
from serving.config.snapshot_codec import encode_snapshot
from serving.control.stores.evidence_store import EvidenceStore
from serving.control.stores.redis_calls import CALL_SECONDS, translated
from serving.control.stores.redis_evidence import RedisEvidence
from serving.control.stores.store import Subscription, outdated, readable
from serving.errors import InvalidConfig, StoreUnavailable

__all__ = ["RedisStore", "judge"]

_CONNECT_SECONDS: Final = 1.0
_REPLY_SECONDS: Final = 2.0
_CONNECTIONS: Final = 4
_ATTEMPTS: Final = 10
"""Another writer got in between this often: somebody writes in a loop, and it is not us."""
_OLDEST: Final = 7


def judge(facts: dict[str, Any]) -> str:
    """Name the server that `INFO` describes (`Valkey 9.1.0`).

    Raises:
        InvalidConfig: it is older than 7, or evicts keys that have no expiry.
    """
    flavour = "Valkey" if "valkey_version" in facts else "Redis"
    version = str(facts.get("valkey_version") or facts.get("redis_version") or "0")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) < _OLDEST:
        raise InvalidConfig(
            f"store: {flavour} {version} is too old; {_OLDEST}.0 or later is needed"
        )
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and not policy.startswith("volatile-"):
        raise InvalidConfig(
            f"store: its maxmemory-policy is {policy}, so it would throw away routes and "
            "counters when memory runs short; set noeviction, or one that starts with volatile-"
        )
    return f"{flavour} {version}"


class RedisStore:
    """`Store` over one bounded pool of connections.

    Args:
        url: `redis://`, `rediss://` or `unix://` address.

    At most `_CONNECTIONS` connections; one more caller waits for a free one, bounded by its
    own call's time. A connection whose call was cancelled is closed by redis-py, so a late
    answer never reaches another caller.
    """

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=CALL_SECONDS,
            socket_timeout=_REPLY_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=15,
            protocol=3,
            client_name="sluice-control",
            # Redis Enterprise's announcements of maintenance: others answer an error to it.
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        self._pool = pool
        self._redis: Redis = Redis.from_pool(pool)
        self.evidence: EvidenceStore = RedisEvidence(self._redis, self._in_one_step)
        """See `Store`."""

    async def check(self) -> str:
        """See `Store`."""
        async with translated():
            facts: dict[str, Any] = await self._redis.info("server", "memory")
        return judge(facts)

    async def publish(self, snapshot: Snapshot) -> bool:
        """See `Store`."""
        content = encode_snapshot(snapshot)

        async def put(pipeline: Pipeline) -> bool:
            await pipeline.watch(SNAPSHOT_KEY)
            current = readable(await pipeline.get(SNAPSHOT_KEY))
            if current is not None and current.revision >= snapshot.revision:
                return False
            pipeline.multi()  # type: ignore[no-untyped-call]
            pipeline.set(SNAPSHOT_KEY, content)
            pipeline.publish(SNAPSHOT_CHANNEL, str(snapshot.revision))
            return True

        return await self._in_one_step(put, SNAPSHOT_KEY)

    async def direct(self, directions: Directions) -> bool:
        """See `Store`."""
        content = encode_directions(directions)

        async def put(pipeline: Pipeline) -> bool:
            await pipeline.watch(DIRECTIONS_KEY)
            stored = {
                engine.decode(errors="replace"): found
                for engine, found in (await pipeline.hgetall(DIRECTIONS_KEY)).items()
                if isinstance(engine, bytes) and isinstance(found, bytes)
            }
            current = decode_directions(stored.get(directions.engine))
            if current is not None and current.revision >= directions.revision:
                return False
            pipeline.multi()  # type: ignore[no-untyped-call]
            if engines := outdated(stored):
                pipeline.hdel(DIRECTIONS_KEY, *engines)
            pipeline.hset(DIRECTIONS_KEY, directions.engine, content)
            pipeline.publish(DIRECTIONS_CHANNEL, str(directions.revision))
            return True

        return await self._in_one_step(put, DIRECTIONS_KEY)

    async def _in_one_step(self, put: Callable[[Pipeline], Awaitable[bool]], key: str) -> bool:
        """Read, compare and write, again if somebody else wrote meanwhile; False: unwritten."""
        for _ in range(_ATTEMPTS):
            async with translated():
                try:
                    # WATCH makes it one step without a script: managed stores and narrow access
                    # lists often refuse EVAL.
                    async with self._redis.pipeline(transaction=True) as pipeline:
                        if written := await put(pipeline):
                            await pipeline.execute()
                        return written
                except WatchError:
                    continue
                except ReadOnlyError:
                    # The old primary is a replica now; a new connection finds the new one.
                    await self._pool.disconnect()
                    raise
        raise StoreUnavailable(f"{key} keeps changing; is another gateway using this store?")

    async def snapshot(self) -> Snapshot | None:
        """See `Store`."""
        async with translated():
            stored = await self._redis.get(SNAPSHOT_KEY)
        return readable(stored)

    async def report(self, report: WorkerReport) -> None:
        """See `Store`."""
        async with translated():
            await self._redis.hset(WORKERS_KEY, report.key, msgspec.json.encode(report))

    async def workers(self) -> list[WorkerReport]:
        """See `Store`."""
        async with translated():
            entries = await self._redis.hgetall(WORKERS_KEY)
        reports = []
        for _, content in sorted(entries.items()):
            try:
                reports.append(msgspec.json.decode(content, type=WorkerReport))
            except msgspec.MsgspecError:
                continue  # another version's words; it will be silent soon
        return reports

    async def forget(self, key: str) -> None:
        """See `Store`."""
        async with translated():
            await self._redis.hdel(WORKERS_KEY, key)

    async def directions(self, engine: str) -> Directions | None:
        """See `Store`."""
        async with translated():
            stored = await self._redis.hget(DIRECTIONS_KEY, engine)
        return decode_directions(stored)

    async def nodes(self) -> list[NodeReport]:
        """See `Store`."""
        async with translated():
            entries = await self._redis.hgetall(NODES_KEY)
        reports = [decode_report(content) for _, content in sorted(entries.items())]
        return [report for report in reports if report is not None]

    async def forget_node(self, node: str) -> None:
        """See `Store`."""
        async with translated():
            await self._redis.hdel(NODES_KEY, node)

    async def metrics(self) -> dict[str, bytes]:
        """See `Store`."""
        async with translated():
            entries = await self._redis.hgetall(METRICS_KEY)
        return {
            node.decode(errors="replace"): content
            for node, content in entries.items()
            if isinstance(node, bytes) and isinstance(content, bytes)
        }

    async def rollouts(self) -> dict[str, int]:
        """See `Store`."""
        async with translated():
            entries = await self._redis.hgetall(ROLLOUTS_KEY)
        return {
            rollout.decode(errors="replace"): int(count)
            for rollout, count in entries.items()
            if isinstance(rollout, bytes) and isinstance(count, bytes) and count.isdigit()
        }

    async def rollout_events(self, rollout: str) -> dict[int, bytes]:
        """See `Store`."""
        async with translated():
            entries = await self._redis.hgetall(rollout_events_key(rollout))
        return {
            int(revision): event
            for revision, event in entries.items()
            if isinstance(revision, bytes) and isinstance(event, bytes) and revision.isdigit()
        }

    async def add_rollout_events(self, rollout: str, events: Mapping[int, bytes]) -> bool:
        """See `Store`."""
        key, revisions = rollout_events_key(rollout), [str(revision) for revision in events]
        async with translated():
            async with self._redis.pipeline(transaction=True) as pipeline:
                for revision, event in events.items():
                    pipeline.hsetnx(key, str(revision), event)
                pipeline.hmget(key, revisions)
                pipeline.hlen(key)
                *_, there, count = await pipeline.execute()
            # Only a hint of what may be missing: it need not be one step with the events.
            await self._redis.hset(ROLLOUTS_KEY, rollout, count)
        return list(there) == list(events.values())

    async def subscribe(self) -> Subscription:
        """See `Store`."""
        channel = self._redis.pubsub(ignore_subscribe_messages=True)
        subscription = _RedisSubscription(channel)
        try:
            async with translated():
                await channel.subscribe(SNAPSHOT_CHANNEL)
                # Its confirmation: only from then on is nothing missed.
                await channel.get_message(timeout=_REPLY_SECONDS)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def close(self) -> None:
        """See `Store`."""
        await self._redis.aclose()
        await self._pool.disconnect()


class _RedisSubscription:
    def __init__(self, channel: PubSub) -> None:
        self._channel = channel

    async def next(self, timeout_seconds: float) -> int | None:
        clock = asyncio.get_running_loop()
        until = clock.time() + timeout_seconds
        try:
            while (left := until - clock.time()) > 0:
                message = await self._channel.get_message(timeout=left)
                if message is None or message["type"] != "message":
                    continue
                data = bytes(message["data"])
                if data.isdigit():
                    return int(data)
        except (RedisError, OSError) as error:
            raise StoreUnavailable("the connection to the store is gone") from error
        return None

    async def close(self) -> None:
        await self._channel.aclose()  # type: ignore[no-untyped-call]
