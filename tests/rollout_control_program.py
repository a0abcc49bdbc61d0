"""Control's looks at evidence in processes that end at any point.

Run as a program it reads one line of JSON for each life, forks, and says how the life ended:

    {"store": url, "folder": path, "looks": 2, "at": 1234, "victim": pid or 0}

At the `at`-th call or return of any Python or C function since the fork, `victim` is killed (0: the
life itself). 0: nobody is. The answer is `[exit status, calls and returns]`, -1 for those of a life
that did not get to say it. A fork takes milliseconds; a new interpreter with numpy half a second.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from rollout_book_kit import RULES

from serving import lifeline
from serving.clock import SystemClock
from serving.control.rollouts.evidence import Evidence
from serving.control.stores.redis_store import RedisStore
from serving.errors import StoreUnavailable


class Lives:
    """The program, as a test uses it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def live(
        self, store: str, folder: Path, *, at: int = 0, victim: int = 0, compact_bytes: int = 4000
    ) -> tuple[int, int]:
        """One life of two looks; its exit status, and its calls and returns."""
        assert self._process.stdin
        assert self._process.stdout
        order = {"store": store, "folder": str(folder), "looks": 2, "at": at, "victim": victim}
        self._process.stdin.write(json.dumps({**order, "compact": compact_bytes}) + "\n")
        self._process.stdin.flush()
        status, events = json.loads(self._process.stdout.readline())
        return status, events

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            stream.close()


class Fate:
    """Counts calls and returns in all threads, and kills at one of them."""

    def __init__(self, at: int, victim: int) -> None:
        self.events = 0
        self._at = at
        self._victim = victim

    def __enter__(self) -> Self:
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _event(self, *_: object) -> None:
        self.events += 1
        if self.events == self._at:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._victim or os.getpid(), signal.SIGKILL)


async def _looks(order: dict[str, Any]) -> None:
    store = RedisStore(order["store"])
    folder = Path(order["folder"])
    log = logging.getLogger("control")
    evidence = Evidence(store, folder, SystemClock(), log, compact_bytes=order["compact"])
    await evidence.open("m", "r", RULES)
    for _ in range(order["looks"]):
        with contextlib.suppress(StoreUnavailable):
            await evidence.look("r")
    # No `close`: control is never asked whether it wants to end.
    await store.close()


def _life(order: dict[str, Any], answer: int) -> None:
    with Fate(order["at"], order["victim"]) as fate:
        asyncio.run(_looks(order))
    os.write(answer, str(fate.events).encode())
    os._exit(0)


def _main() -> None:
    lifeline.die_with_parent(int(sys.argv[1]))
    logging.disable()
    for line in sys.stdin:
        order = json.loads(line)
        heard, answer = os.pipe()
        child = os.fork()
        if child == 0:
            _life(order, answer)
        os.close(answer)
        with os.fdopen(heard) as file:
            events = int(file.read() or -1)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps([os.waitstatus_to_exitcode(status), events]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
