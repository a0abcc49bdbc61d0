"""Evidence of rollouts in Redis or Valkey."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from serving.control.stores.evidence_store import (
    Confirmation,
    EvidenceIndex,
    StoredBook,
    rollout_key,
)
from serving.control.stores.redis_calls import translated
from serving.rollout.wire import evidence_key, folded_key

__all__ = ["RedisEvidence"]

InOneStep = Callable[[Callable[[Pipeline], Awaitable[bool]], str], Awaitable[bool]]


class RedisEvidence:
    """`EvidenceStore` over the connections of `RedisStore`.

    Args:
        redis: those connections.
        in_one_step: its way to read, compare and write.
    """

    def __init__(self, redis: Redis, in_one_step: InOneStep) -> None:
        self._redis = redis
        self._in_one_step = in_one_step

    async def index(self, rollout: str) -> EvidenceIndex:
        """See `EvidenceStore`.

        Sizes are asked for first: one entry that is huge must not be read several times a second.
        """
        key = evidence_key(rollout)
        async with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hkeys(key)
                pipeline.get(rollout_key(rollout, "mark"))
                names, mark = await pipeline.execute()
            names = [name for name in names if _is_text(name)]
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hstrlen(key, name)
                sizes = await pipeline.execute() if names else []
        found = dict(zip((name.decode() for name in names), sizes, strict=True))
        return EvidenceIndex(found, _number(mark))

    async def unfolded(self, rollout: str, incarnations: Collection[str]) -> dict[str, bytes]:
        """See `EvidenceStore`."""
        if not incarnations:
            return {}
        names = list(incarnations)
        async with translated():
            found = await self._redis.hmget(evidence_key(rollout), names)
        return {
            name: content
            for name, content in zip(names, found, strict=True)
            if isinstance(content, bytes)
        }

    async def confirm(self, rollout: str, confirmation: Confirmation) -> bool:
        """See `EvidenceStore`."""
        mark, frames = rollout_key(rollout, "mark"), rollout_key(rollout, "frames")

        async def put(pipeline: Pipeline) -> bool:
            await pipeline.watch(mark)
            before = confirmation.mark - bool(confirmation.frame)
            if not confirmation.picture and _number(await pipeline.get(mark)) != before:
                return False
            pipeline.multi()  # type: ignore[no-untyped-call]
            if confirmation.picture:
                pipeline.unlink(frames, folded_key(rollout))
                pipeline.set(rollout_key(rollout, "picture"), confirmation.picture)
            elif confirmation.frame:
                pipeline.rpush(frames, confirmation.frame)
            pipeline.set(mark, str(confirmation.mark))
            pipeline.set(rollout_key(rollout, "book"), confirmation.counts)
            if confirmation.folded:
                pipeline.hset(folded_key(rollout), mapping=_plain(confirmation.folded))
            if confirmation.gone:
                pipeline.hdel(evidence_key(rollout), *confirmation.gone)
            return True

        return await self._in_one_step(put, mark)

    async def book(self, rollout: str) -> StoredBook:
        """See `EvidenceStore`."""
        async with translated(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(rollout_key(rollout, "picture"))
            pipeline.lrange(rollout_key(rollout, "frames"), 0, -1)
            pipeline.get(rollout_key(rollout, "mark"))
            picture, frames, mark = await pipeline.execute()
        return StoredBook(picture or b"", frames, _number(mark))

    async def forget(self, rollout: str) -> None:
        """See `EvidenceStore`."""
        ours = [rollout_key(rollout, what) for what in ("book", "picture", "frames", "mark")]
        async with translated():
            await self._redis.unlink(evidence_key(rollout), folded_key(rollout), *ours)


def _number(stored: bytes | str | None) -> int:
    return int(stored) if stored and stored.isdigit() else 0


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _plain(folded: dict[str, int]) -> dict[Any, Any]:
    return {incarnation: str(number) for incarnation, number in folded.items()}
