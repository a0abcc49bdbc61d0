"""Sending a request for training: by webhook, to Airflow, or to a program. One attempt each."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from serving.config.schema import RetrainConfig
from serving.control.outbound import DeliveryFailed, Reach, post, post_event, read_secret
from serving.tasks import end

__all__ = ["Courier"]

_TAIL_BYTES: Final = 2048
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER")
"""Of our environment, what a program gets: no credential of the gateway's is among it."""


class Courier:
    """Delivers events to where a model's `monitoring.retrain` says.

    Args:
        loopback: whether loopback addresses are meant; see `serving.config.destinations`.
        hosts: names that it may go to; empty: any.
    """

    def __init__(self, *, loopback: bool, hosts: Callable[[], Sequence[str]] = tuple) -> None:
        self._loopback = loopback
        self._hosts = hosts

    async def deliver(
        self, retrain: RetrainConfig, directory: Path, identifier: str, event: bytes
    ) -> str:
        """Try once, within `retrain.timeout`; says what became of it.

        Args:
            retrain: names one destination.
            directory: the configuration's, where `secret_file` is and programs run.
            identifier: the event's id.
            event: the CloudEvent.

        Raises:
            DeliveryFailed: not delivered, or nobody can tell.
        """
        seconds = float(retrain.timeout)
        if retrain.command:
            return await _run(retrain.command, directory, identifier, event, seconds)
        try:
            async with asyncio.timeout(seconds):
                secret = await asyncio.to_thread(read_secret, directory, retrain.secret_file)
                if retrain.airflow:
                    return await self._airflow(retrain.airflow, secret, identifier, event)
                return await post_event(retrain.webhook, secret, event, self._reach())
        except TimeoutError as error:
            raise DeliveryFailed(f"no answer within {seconds:g} s") from error

    def _reach(self) -> Reach:
        return Reach(hosts=self._hosts(), loopback=self._loopback)

    async def _airflow(self, url: str, token: bytes, identifier: str, event: bytes) -> str:
        # `logical_date` must be there and may be null; a field that Airflow does not know is a 422
        # (apache/airflow, TriggerDAGRunPostBody).
        body = msgspec.json.encode(
            {
                "dag_run_id": identifier,
                "logical_date": None,
                "conf": msgspec.Raw(event),
                "note": "Asked for by a Sluice gateway: the model does worse than it did.",
            }
        )
        headers = {"content-type": "application/json", "accept": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token.decode('ascii', 'replace')}"
        status = await post(url, headers, body, self._reach())
        if status == 409:
            return "Airflow has this run already"
        if status not in (200, 201):
            raise DeliveryFailed(f"Airflow answered {status}{_meaning(status)}")
        return f"Airflow answered {status}"


def _meaning(status: int) -> str:
    """What a person has to do about it."""
    words = {
        401: "the token in `secret_file` is not accepted",
        403: "the token's user may not trigger this DAG",
        404: "there is no such DAG",
        422: "it does not take this request; it must be Airflow 3",
    }
    return f": {words[status]}" if status in words else ""


async def _run(
    command: list[str], directory: Path, identifier: str, event: bytes, seconds: float
) -> str:
    """Run a program; it and what it started in its session are killed when time is up."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=directory,
            env=environment | {"SLUICE_EVENT_ID": identifier},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise DeliveryFailed(f"the program cannot be started: {words}") from error
    tail = bytearray()
    feeding = asyncio.create_task(_feed(child.stdin, event))
    reading = asyncio.create_task(_keep_tail(child.stdout, tail))
    try:
        async with asyncio.timeout(seconds):
            code = await child.wait()
            await asyncio.wait({reading}, timeout=0.5)  # a grandchild may hold the pipe open
    except TimeoutError as error:
        raise DeliveryFailed(f"the program ran longer than {seconds:g} s{_said(tail)}") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
        await end(feeding, reading)
        # A grandchild that still holds the pipe would keep our end of it open as well.
        child._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
    if code != 0:
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise DeliveryFailed(f"the program ended with {how}{_said(tail)}")
    return f"the program ended with exit code 0{_said(tail)}"


async def _feed(stdin: Any, event: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not want to know
        stdin.write(event + b"\n")
        await stdin.drain()
    stdin.close()


async def _keep_tail(stdout: Any, tail: bytearray) -> None:
    while chunk := await stdout.read(65536):
        tail += chunk
        del tail[:-_TAIL_BYTES]


def _said(tail: bytearray) -> str:
    lines = bytes(tail).decode("utf-8", "replace").split("\n")
    text = " | ".join(line.strip() for line in lines if line.strip())[-300:]
    return f"; it said: {text}" if text else ""
