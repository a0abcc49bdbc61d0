"""A generator process: `python -m serving.loadtest.process`, told what to do on standard input.

Its own process, so that neither tables nor plots make a request late, and several can share a load.
"""

import asyncio
import gc
import os
import sys
import time
from typing import Final

import numpy as np
import uvloop

from serving.errors import InvalidRequest
from serving.loadtest.bodies import BinaryBodies, Bodies, GrpcBodies, JsonBodies
from serving.loadtest.generator import Client, Generator
from serving.loadtest.outcomes import Outcomes
from serving.loadtest.plan import KeyColumn
from serving.loadtest.target import TargetUnreachable
from serving.loadtest.turns import Turns
from serving.loadtest.wire import (
    LENGTH,
    Orders,
    Progress,
    Ready,
    Refused,
    Report,
    decode,
    frame,
    pack,
    unpack,
)

__all__ = ["main"]

_TELL_SECONDS: Final = 0.25
_SHOWN: Final = 5000
_ARRAYS: Final = (
    *("status", "ok", "answered", "ended", "lag", "wait", "version", "role", "features"),
    *("bytes_sent", "bytes_received"),
)


def main() -> None:
    """Take orders, send, report."""
    # gRPC's core writes a line for each handshake that fails; what is wrong is said once, by us.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    orders = decode(_read(), Orders)
    uvloop.run(_run(orders))


async def _run(orders: Orders) -> None:
    turns = Turns(
        times=unpack(orders.times),
        kind=unpack(orders.kind),
        rows=unpack(orders.rows),
        offset=unpack(orders.offset),
        deadline=orders.deadline,
        timeout=orders.timeout,
    )
    outcomes = Outcomes(len(turns))
    generator = Generator(turns, outcomes)
    try:
        client = _client(orders, turns, outcomes, generator)
        await client.open()
    except (TargetUnreachable, InvalidRequest, OSError) as error:
        words = getattr(error, "message", None) or str(error)
        _tell(Refused(words, isinstance(error, TargetUnreachable)))
        return
    _tell(Ready())
    start = _read()
    if not start:
        return
    # What is there now stays; collecting it again and again would stop the loop for nothing.
    gc.collect()
    gc.freeze()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), _stop, generator)
    teller = _Teller(turns, outcomes)
    await generator.run(client, decode(start, float), teller.sweep)
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    _tell(_report(generator, outcomes))
    await client.close()


def _client(orders: Orders, turns: Turns, outcomes: Outcomes, generator: Generator) -> Client:
    grpc = orders.target.grpc
    made = GrpcBodies if grpc else BinaryBodies if orders.encoding == "binary" else JsonBodies
    bodies: list[Bodies] = [
        made(
            kind,
            [
                KeyColumn(
                    name=one.name,
                    datatype=one.datatype,
                    values=unpack(one.values),
                    table=one.table,
                )
                for one in columns
            ],
        )
        for kind, columns in zip(orders.kinds, orders.columns, strict=True)
    ]
    if grpc:
        from serving.loadtest.grpc_client import GrpcClient as Kind  # noqa: PLC0415 - 0.2 s
    else:
        from serving.loadtest.http_client import HttpClient as Kind  # type: ignore[assignment] # noqa: PLC0415
    return Kind(orders, bodies, turns, outcomes, freed=generator.freed)


def _stop(generator: Generator) -> None:
    """Standard input has ended: whoever started us wants the end, or is gone."""
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    generator.stop()


class _Teller:
    """Tells now and then how far it is."""

    def __init__(self, turns: Turns, outcomes: Outcomes) -> None:
        self._times = np.frombuffer(turns.times) if len(turns) else np.empty(0)
        self._outcomes = outcomes
        self._next = time.monotonic() + _TELL_SECONDS

    def sweep(self) -> None:
        """Tell, if it is time."""
        if time.monotonic() < self._next:
            return
        self._next += _TELL_SECONDS
        outcomes = self._outcomes
        recent = np.array(outcomes.recent[-_SHOWN:], np.int64)
        outcomes.recent.clear()
        latencies = (outcomes.ended[recent] - self._times[recent]).astype(np.float32)
        _tell(
            Progress(
                sent=outcomes.sent_count,
                ended=outcomes.ended_count,
                ok=outcomes.ok_count,
                unsent=outcomes.unsent_count,
                latencies=pack(latencies),
            )
        )


def _report(generator: Generator, outcomes: Outcomes) -> Report:
    count = generator.due
    return Report(
        count=count,
        arrays={name: pack(getattr(outcomes, name)[:count]) for name in _ARRAYS},
        texts=outcomes.words.texts,
        problems=outcomes.problems,
        cpu_share=generator.cpu_share,
        most_in_flight=outcomes.most_in_flight,
        interrupted=generator.interrupted,
    )


def _read() -> bytes:
    """One frame; empty at the end of standard input."""
    head = _exactly(LENGTH.size)
    return _exactly(LENGTH.unpack(head)[0]) if head else b""


def _exactly(count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(sys.stdin.fileno(), min(count - len(parts), 1 << 20))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def _tell(message: object) -> None:
    sys.stdout.buffer.write(frame(message))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
