"""A publisher on a memory store, and directories that need no files."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from serving.clock import ManualClock
from serving.config.schema import (
    Configuration,
    GatewayConfig,
    ModelConfig,
    TrafficConfig,
    VersionSource,
)
from serving.config.snapshot import Snapshot, StagedVersion
from serving.control.publishing.compile import Compiled
from serving.control.publishing.journal import Journal
from serving.control.publishing.publisher import Publisher
from serving.control.stores.store import MemoryStore
from serving.errors import (
    InvalidConfig,
)
from serving.tasks import end
from serving.types import Signature


def compiled(production: str = "v1", gateway: GatewayConfig | None = None) -> Compiled:
    """A configuration with one model."""
    versions = {v: VersionSource(path=f"{v}.onnx", sha256=v[1] * 64) for v in ("v1", "v2")}
    model = ModelConfig(
        model="demo", versions=versions, traffic=TrafficConfig(production=production)
    )
    signature = Signature(inputs=[], outputs=[], batchable=True)
    staged = {
        v: StagedVersion(path=f"/data/{v}", sha256=source.sha256, signature=signature)
        for v, source in versions.items()
    }
    return Compiled(
        configuration=Configuration(gateway=gateway or GatewayConfig(), models={"demo": model}),
        staged={"demo": staged},
        warnings=[],
    )


class Directories:
    """Stands for configuration directories: a path, and what compiling it gives."""

    def __init__(self) -> None:
        self.made: dict[str, Compiled | InvalidConfig] = {
            "/v1": compiled("v1"),
            "/v2": compiled("v2"),
            "/bad": InvalidConfig("the configuration has 1 mistake", ("models/demo.yaml: no",)),
        }

    def compile(self, directory: Path) -> Compiled:
        """Compile a directory, or say why not."""
        found = self.made[str(directory)]
        if isinstance(found, InvalidConfig):
            raise found
        return found


class Bench:
    """A publisher, what surrounds it, and how to restart it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = MemoryStore()
        self.directories = Directories()
        self.publisher = self.made()

    @classmethod
    async def serving_v1(cls, folder: Path) -> "Bench":
        """One that has published /v1."""
        made = cls(folder)
        await made.publisher.start(Path("/v1"))
        return made

    def made(self) -> Publisher:
        """A publisher as a freshly started process has it: only the disk is remembered."""
        return Publisher(
            store=self.store,
            journal=Journal(self.folder / "journal"),
            compile_directory=self.directories.compile,
            gateway=GatewayConfig(),
            data=self.folder,
            clock=ManualClock(),
            log=logging.getLogger("test"),
        )

    async def restarted(self, directory: str | None) -> Publisher:
        """Start again on the same disk."""
        self.publisher = self.made()
        await self.publisher.start(Path(directory) if directory else None)
        return self.publisher

    async def stored(self) -> Snapshot:
        """What workers read."""
        snapshot = await self.store.snapshot()
        assert snapshot is not None
        return snapshot


@asynccontextmanager
async def keeping(publisher: Publisher) -> AsyncIterator[None]:
    """Upkeep running meanwhile."""
    task = asyncio.create_task(publisher.upkeep.keep())
    try:
        yield
    finally:
        await end(task)
