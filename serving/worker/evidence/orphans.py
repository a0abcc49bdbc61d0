"""Speaking for workers that died: what was in flight in them failed, and nothing will follow.

Each worker looks for files of `in_flight` that nobody holds; so a worker that never comes back is
spoken for by its siblings. The number under which somebody speaks is settled in the file before
anything is said, and the file stays until control has confirmed that number: whoever speaks
again, after whatever happened in between, says the same under the same number.
"""

import time
from collections.abc import Container
from pathlib import Path
from typing import Final

import redis.asyncio as redis

from serving.rollout.wire import (
    Arms,
    Batch,
    Cells,
    Share,
    Unfolded,
    cell_of,
    decode_unfolded,
    encode_unfolded,
    evidence_key,
    folded_key,
    scramble_of,
)
from serving.worker.evidence.in_flight import SUFFIX, Found, Word, find
from serving.worker.evidence.notes import CANARY, PRODUCTION

__all__ = ["KILLED", "last_batch", "speak_for_the_dead"]

KILLED: Final = "killed"
_FORGET_SECONDS: Final = 3600.0
"""A file of a rollout that is over goes when it is this old."""


async def speak_for_the_dead(
    folder: Path, client: "redis.Redis", live: Container[str]
) -> dict[str, int]:
    """Say what dead workers of this node cannot.

    Args:
        folder: where workers keep their files.
        client: of the store.
        live: ids of rollouts that count.

    Returns:
        By model: requests that had ended and are lost with their worker, told for the first time.

    Raises:
        RedisError, OSError: as the client; doing it again is safe.
    """
    lost: dict[str, int] = {}
    for path in _files(folder):
        found = find(path)
        if found is not None:
            try:
                told = await _speak(found, client, live)
                if told:
                    lost[found.owner.model] = lost.get(found.owner.model, 0) + told
            finally:
                found.close()
    return lost


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


async def _speak(found: Found, client: "redis.Redis", live: Container[str]) -> int:
    owner = found.owner
    if owner.rollout not in live:
        if time.time() - found.path.stat().st_mtime > _FORGET_SECONDS:
            found.remove()
        return 0
    number = found.word(Word.SPOKEN)
    if not number:
        # What the dead worker sent last may still be on its way: speak in the next round.
        found.speak(found.word(Word.NUMBER) + 1)
        return 0
    evidence, confirmed = evidence_key(owner.rollout), folded_key(owner.rollout)
    pipe = client.pipeline(transaction=False)
    pipe.hget(evidence, owner.incarnation)
    pipe.hget(confirmed, owner.incarnation)
    body, said = await pipe.execute()
    folded = int(said or 0)
    if folded >= number:
        found.remove()
        return 0
    standing = _standing(body)
    if standing and standing[-1].number >= number:
        return 0  # said, and not confirmed yet
    arrived = max([folded, *(batch.number for batch in standing)]) >= found.word(Word.NUMBER)
    lost = found.word(Word.NOTED) - found.word(Word.SENT if arrived else Word.STANDING)
    batches = [batch for batch in standing if batch.number > folded]
    batches.append(last_batch(found, number, time.time(), lost))
    words = Unfolded(owner.worker, owner.incarnation, batches, ended=True)
    await client.hset(evidence, owner.incarnation, encode_unfolded(words))
    return lost


def _standing(body: bytes | None) -> list[Batch]:
    try:
        return decode_unfolded(body).batches if body is not None else []
    except ValueError:
        return []


def last_batch(found: Found, number: int, at: float, lost: int) -> Batch:
    """What was in flight, as errors of the versions that had it."""
    owner = found.owner
    scramble = scramble_of(owner.rollout)
    cells: dict[float, list[list[int]]] = {}
    unkeyed: dict[float, list[int]] = {}
    requests: dict[float, list[int]] = {}
    for one in found.entries():
        requests.setdefault(one.rho, [0, 0])[one.arm] += 1
        keys = cells.setdefault(one.rho, [[], []])
        others = unkeyed.setdefault(one.rho, [0, 0])
        if one.place is None:
            others[one.arm] += 1
        else:
            keys[one.arm].append(cell_of(one.place, scramble))
    shares = []
    for rho, counts in requests.items():
        canary, production = (
            Cells(
                b"".join(one.to_bytes(4, "little") for one in dict.fromkeys(cells[rho][arm])),
                unkeyed[rho][arm],
            )
            for arm in (CANARY, PRODUCTION)
        )
        arms = Arms(canary, production)
        shares.append(Share(rho, counts, arms, dict.fromkeys(owner.signals, arms), {}))
    return Batch(
        number,
        at,
        owner.step,
        shares,
        {},
        [[], []],
        lost={KILLED: lost} if lost > 0 else {},
    )
