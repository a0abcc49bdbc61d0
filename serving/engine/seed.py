"""Load the views' seeds: `python -m serving.engine.seed`; started while an engine starts.

A process of its own, because reading Parquet takes 60 MB that the engine would then hold for good.
Prints a JSON line for each view. A view that was ever written, or whose seed was loaded before,
is left alone: somebody may have changed it, or erased a person from it.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from feature_cache.address import Address
from feature_cache.cache import FeatureCache
from feature_cache.errors import InvalidAddress, StoreRefused, Unavailable
from feature_cache.keys import KeySpace
from feature_cache.loading import LoadReport, Stopped, load
from feature_cache.store import RemoteStore
from feature_cache.tables import TableFile, UnfitFile
from serving.config.keys import STORE_VARIABLE
from serving.config.load import Loaded, load_directory, resolve_seeds
from serving.errors import SluiceError
from serving.lifeline import die_with_parent

__all__ = ["Seeded", "main"]

_CONNECT_SECONDS: Final = 60.0
_UNFINISHED: Final = b"unfinished"
_FINISHED: Final = b"finished"


class Seeded(msgspec.Struct, frozen=True, kw_only=True):
    """One view: how many rows were loaded and rejected; `known` if it was left alone."""

    view: str
    written: int = 0
    rejected: int = 0
    known: bool = False
    problem: str = ""


async def _seed_all(loaded: Loaded, url: str) -> int:
    features = loaded.configuration.gateway.features
    store = RemoteStore(Address.parse(features.store or url), tracking=False)
    store.link.start()
    try:
        if not await store.link.ready(_CONNECT_SECONDS):
            raise Unavailable(f"the feature store cannot be reached: {store.link.reason}")
        cache = FeatureCache(
            store, loaded.configuration.views, tenant=features.tenant, near_cache_bytes=0
        )
        problems = 0
        for view, path in resolve_seeds(loaded).items():
            space = KeySpace(features.tenant, view, cache.views[view].entity)
            seeded = await _seed(store, cache, space, path)
            problems += bool(seeded.problem)
            print(msgspec.json.encode(seeded).decode(), flush=True)  # noqa: T201
        await cache.close()
        return problems
    finally:
        await store.link.close()


async def _seed(store: RemoteStore, cache: FeatureCache, space: KeySpace, path: Path) -> Seeded:
    view = space.view
    marker = await store.call(b"GET", space.seed)
    # Unfinished: this process was stopped in the middle of it.
    if marker != _UNFINISHED and (marker is not None or await store.schemas(space.schemas)):
        return Seeded(view=view, known=True)
    await store.call(b"SET", space.seed, _UNFINISHED)
    now_ms = int(time.time() * 1e3)
    report = LoadReport()
    try:
        table = TableFile(path, cache.views[view], event_ms=now_ms, now_ms=now_ms)
        await load(
            cache, view, table.batches(), oldest_ms=0, report=report, seen=lambda _batch: None
        )
    except (UnfitFile, OSError, Stopped) as error:
        return Seeded(view=view, written=report.written, problem=str(error))
    await store.call(b"SET", space.seed, _FINISHED)
    return Seeded(view=view, written=report.written, rejected=report.rejected)


def main(argv: list[str] | None = None) -> int:
    """Load every seed; exit 1 if one of them could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.engine.seed",
        description="Load the seeds of views that have never been written. `sluice up` starts it.",
    )
    parser.add_argument("--config", required=True, type=Path, help="configuration directory")
    parser.add_argument("--parent", type=int, help="exit when this process does")
    arguments = parser.parse_args(argv)
    if arguments.parent is not None:
        die_with_parent(arguments.parent)
    try:
        loaded = load_directory(arguments.config)
        return int(asyncio.run(_seed_all(loaded, os.environ[STORE_VARIABLE])) > 0)
    except (SluiceError, InvalidAddress, StoreRefused, Unavailable) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the engine shows last words
        return 1


if __name__ == "__main__":
    sys.exit(main())
