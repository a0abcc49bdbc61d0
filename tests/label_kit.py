"""A control process's insides over a prediction log, for tests of labels and performance."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import onnx_models
import yaml
from click.testing import CliRunner, Result
from control_kit import ConfigDirectory, Valkey

from serving.cli.app import app
from serving.config.identity import hash_token
from serving.control.process import Control, parse_arguments

MONITORING: dict[str, Any] = {
    "prediction": {"decision": "label", "score": "probabilities[1]"},
    "slices": ["sex"],
    "labels": {"horizon": "7d"},
}


class LabelGateway:
    """Control on a real socket with a real store; the log is written by `parquet_log`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = self.data / "predictions"
        self.config = ConfigDirectory(folder / "config")
        self.valkey = Valkey(folder / "valkey")
        self._stack = AsyncExitStack()

    async def start(
        self, monitoring: dict[str, Any] | None = None, *, logs: bool = True, **model: Any
    ) -> None:
        """Configure, and start control."""
        self.configure(monitoring, logs=logs, **model)
        await self.run()

    def configure(
        self, monitoring: dict[str, Any] | None = None, *, logs: bool = True, **model: Any
    ) -> None:
        """Write the model `demo`, a classifier of three features, and two tokens."""
        self.config.artifact("v1", onnx_models.mlp(3))
        self.config.artifact("v2", onnx_models.mlp(3, seed=1))
        view = {
            "view": "person",
            "entity": {"person_id": "int64"},
            "fields": {
                name: {"type": "float32", "default": 0} for name in ("age", "income", "sex")
            },
        }
        (self.config.root / "features" / "person.yaml").write_text(yaml.safe_dump(view))
        self.config.model(
            inputs={"X": {"features": ["person.*"]}},
            monitoring=MONITORING if monitoring is None else monitoring,
            **model,
        )
        tokens = [
            {"name": name, "sha256": hash_token(f"{name}-token"), "roles": [role]}
            for name, role in (("labeller", "operator"), ("app", "infer"))
        ]
        (self.config.root / "tokens.yaml").write_text(yaml.safe_dump({"tokens": tokens}))
        # Rows of tests are of days long gone.
        self.config.gateway(
            auth={"tokens": "tokens.yaml"}, **({"log": {"retention": "36500d"}} if logs else {})
        )

    @property
    def arguments(self) -> list[str]:
        """What an engine gives the control process."""
        return [
            *("--data", str(self.data), "--config", str(self.config.root)),
            *("--admin", "127.0.0.1:0", "--store", self.valkey.url),
        ]

    async def run(self) -> None:
        """Start control over what is there."""
        self.control = Control(parse_arguments(self.arguments))
        running = asyncio.create_task(self.control.run())
        self._stack.push_async_callback(self._end, running)
        async with asyncio.timeout(60):
            while not self.control.publisher.started:
                if running.done():
                    running.result()
                await asyncio.sleep(0.01)
        self.url = f"http://{self.control.address}"
        self.http = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=self.url, timeout=60)
        )

    async def _end(self, running: "asyncio.Task[None]") -> None:
        self.control._stop.set()
        await running

    async def stop(self) -> None:
        """Stop control; `run` starts it again."""
        await self._stack.aclose()

    async def close(self) -> None:
        """Stop everything."""
        await self.stop()
        self.valkey.stop()

    async def send(self, *labels: Any, who: str = "labeller", **body: Any) -> httpx.Response:
        """POST labels."""
        return await self.http.post(
            "/api/v1/labels",
            json={"labels": list(labels), **body},
            headers={"authorization": f"Bearer {who}-token"},
        )

    async def performance(self, **query: str) -> Any:
        """The report."""
        answer = await self.http.get(
            "/api/v1/performance/demo",
            params=query,
            headers={"authorization": "Bearer labeller-token"},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def sluice(self, *words: object, who: str = "labeller") -> Result:
        """Run a command against it, in a thread of this process."""
        token = self.folder / "token"
        token.write_text(f"{who}-token")
        where = ("--admin", self.url, "--token-file", str(token))
        return await asyncio.to_thread(
            CliRunner().invoke, app, [*map(str, words), *where], env={"COLUMNS": "250"}
        )


def figure(group: Any, name: str) -> Any:
    """One figure of a group in a report's JSON."""
    [found] = [one for one in group["figures"] if one["name"] == name]
    return found
