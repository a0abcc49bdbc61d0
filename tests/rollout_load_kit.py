"""A gateway with a rollout, clients that each have a key, and the truth about what they were told.

Both versions are `picky`: production answers every value, the canary fails from `CANARY_ENTRIES`
on. So a test decides by the value that it sends whether the canary fails.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import gateway_kit
import msgspec
import onnx_models
from load_kit import Load

MODEL: Final = "scores"
FINE: Final = 5
"""A value that both versions answer."""

BAD: Final = 500
"""A value that the canary alone fails."""

CANARY_ENTRIES: Final = 100
QUICK: Final = {"min": "0s", "max": "1h"}
BOUND_SECONDS: Final = 60.0


def configure(
    folder: Path,
    steps: list[dict[str, Any]],
    *,
    engine: str = "local",
    gateway: Mapping[str, Any] | None = None,
    traffic: Mapping[str, Any] | None = None,
    serve: Mapping[str, Any] | None = None,
    **rollout: Any,
) -> None:
    """Write a directory whose one model rolls out `v2` by these steps, on two workers."""
    kind: dict[str, Any] = {"kind": engine, "workers": 2}
    if engine == "ray":
        kind["worker_cpus"] = 0.5
    gateway_kit.write_gateway(folder, **{"engine": kind, **(gateway or {})})
    gateway_kit.write_model(
        folder,
        MODEL,
        {"v1": onnx_models.picky(10_000), "v2": onnx_models.picky(CANARY_ENTRIES)},
        {"assignment": {"header": "x-user", "on_missing_key": "random"}, **(traffic or {})},
        serve=dict(serve or {}),
        rollout={"canary": "v2", "steps": steps, **rollout},
    )


class Answer(msgspec.Struct, frozen=True):
    """One request: whose, when (monotonic), and what came of it."""

    key: int
    due: float
    ended: float
    status: int
    version: str
    role: str


class KeyedLoad(Load):
    """Requests of users 0 to `users - 1` in turn, each with its key in `x-user`.

    `value(user)` is what is sent; it may change while the load runs.
    """

    def __init__(
        self, address: str, *, users: int, value: Callable[[int], int], rate: float
    ) -> None:
        super().__init__(address, f"/v2/models/{MODEL}/infer", {}, rate=rate)
        self.answers: list[Answer] = []
        self.value = value
        self._users = itertools.cycle(range(users))

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, str, bool]:
        user = next(self._users)
        due = time.monotonic()
        body = json.dumps(
            {
                "inputs": [
                    {"name": "X", "datatype": "INT64", "shape": [1, 1], "data": [self.value(user)]}
                ]
            }
        ).encode()
        writer.write(
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nx-user: u{user}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split("\r\n")[0])
        content = await reader.readexactly(length)
        status = int(head.split()[1])
        said = json.loads(content) if status == 200 else {}
        self.answers.append(
            Answer(
                user,
                due,
                time.monotonic(),
                status,
                said.get("model_version", ""),
                said.get("parameters", {}).get("model_role", ""),
            )
        )
        words = "" if status == 200 else f"{status} {content[:120].decode(errors='replace')}"
        return status, words, "connection: close" not in head

    def by(self, version: str) -> list[Answer]:
        """Answers of one version, as they came."""
        return [one for one in self.answers if one.version == version]


@contextlib.contextmanager
def users(
    gateway: gateway_kit.Running,
    count: int,
    *,
    value: Callable[[int], int] = lambda _: FINE,
    rate: float = 100.0,
) -> Iterator[KeyedLoad]:
    """A load that runs while the block does."""
    load = KeyedLoad(gateway.http, users=count, value=value, rate=rate)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def ask(gateway: gateway_kit.Running, value: int) -> int:
    """One request without a user; its status."""
    inputs = [{"name": "X", "datatype": "INT64", "shape": [1, 1], "data": [value]}]
    return gateway.infer(MODEL, inputs)[0]


def standing(gateway: gateway_kit.Running) -> dict[str, Any]:
    """What control says of the rollout; empty if it says nothing."""
    code, answer = gateway.ask(f"{gateway.admin}/api/v1/rollouts/{MODEL}", token=gateway.token)
    return dict(answer) if code == 200 else {}


def history(gateway: gateway_kit.Running) -> list[dict[str, Any]]:
    """Events of the newest rollout, oldest first."""
    code, answer = gateway.ask(
        f"{gateway.admin}/api/v1/rollouts/{MODEL}/history", token=gateway.token
    )
    assert code == 200, answer
    return list(answer["rollouts"][0]["events"])


def say(gateway: gateway_kit.Running, verb: str, **body: Any) -> tuple[int, Any]:
    """Use a verb, as `sluice rollout VERB` does."""
    return gateway.ask(
        f"{gateway.admin}/api/v1/rollouts/{MODEL}/{verb}",
        {"reason": "a test", **body},
        token=gateway.token,
    )


def eventually(condition: Callable[[], Any], what: str, seconds: float = BOUND_SECONDS) -> Any:
    """Wait for other processes; what the condition came to."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):  # whoever is asked may be away for a moment
            if found := condition():
                return found
        assert time.monotonic() < end, what
        time.sleep(0.05)


def until_phase(gateway: gateway_kit.Running, *phases: str) -> dict[str, Any]:
    """Wait for the rollout to be in one of the phases."""
    found = eventually(
        lambda: (now := standing(gateway)) and now["phase"] in phases and now,
        f"it is {' or '.join(phases)}",
    )
    return dict(found)
