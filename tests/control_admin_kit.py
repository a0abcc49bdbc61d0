"""A control process's insides on real sockets, for tests that ask it over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import httpx
from control_kit import ConfigDirectory, FakeWorker, Valkey

from serving.control.audit import verify
from serving.control.process import Control, parse_arguments
from serving.control.stores.redis_store import RedisStore
from serving.tasks import end


class Gateway:
    """A control process's insides on real sockets, a real store, and doubles of workers."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.config = ConfigDirectory(folder / "config")
        self.valkey = Valkey(folder / "valkey")
        self.store = RedisStore(self.valkey.url)
        self.verify: Any = True
        self._stack = AsyncExitStack()

    async def start(self, **gateway: Any) -> None:
        """Start control and wait until it has published."""
        self.config.gateway(**gateway)
        self.control = Control(
            parse_arguments(
                [
                    *("--data", str(self.data), "--config", str(self.config.root)),
                    *("--admin", "127.0.0.1:0", "--store", self.valkey.url),
                ]
            )
        )
        running = asyncio.create_task(self.control.run())
        self._stack.push_async_callback(self._end, running)
        async with asyncio.timeout(60):
            while not self.control.publisher.started:
                if running.done():
                    running.result()
                await asyncio.sleep(0.01)
        scheme = "https" if self.verify is not True else "http"
        self.url = f"{scheme}://{self.control.address}"
        self.token = (self.data / "admin.token").read_text().strip()
        self.http = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self.url, verify=self.verify, timeout=60)
        )
        self.admin = {"authorization": f"Bearer {self.token}"}

    async def _end(self, running: "asyncio.Task[None]") -> None:
        self.control._stop.set()
        await running

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop everything."""
        await self._stack.aclose()
        await self.store.close()
        self.valkey.stop()

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of a successful GET."""
        answer = await self.http.get(path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def verb(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST as admin."""
        return await self.http.post(path, json=body, headers=self.admin, **options)

    async def apply(self, **more: Any) -> httpx.Response:
        """Apply the directory."""
        return await self.verb("/api/v1/config/apply", {"directory": str(self.config.root), **more})

    @asynccontextmanager
    async def worker(self, name: str = "worker-0", refuse: str = "") -> AsyncIterator[FakeWorker]:
        """A worker that reports."""
        worker = FakeWorker(self.store, name, refuse)
        task = asyncio.create_task(worker.run())
        try:
            await asyncio.wait_for(worker.reported.wait(), 30)
            yield worker
        finally:
            await end(task)

    def audit(self) -> list[dict[str, Any]]:
        """The audit log, which must be unbroken."""
        path = self.data / "journal" / "audit.jsonl"
        if not path.exists():
            return []
        assert verify(path) == []
        return [json.loads(line) for line in path.read_text().splitlines()]
