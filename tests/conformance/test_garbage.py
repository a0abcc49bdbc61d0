"""What a listener leaves behind when a request is done with: nothing that must be searched for."""

import asyncio
import gc
import weakref
from pathlib import Path

import grpc
import pytest
from grpc_wire import infer_request, wire
from http_rig import HttpRig, eventually, infer

from serving.errors import Overloaded


class Left:
    """Makes errors and knows how many of them are still there."""

    def __init__(self) -> None:
        self._errors: weakref.WeakSet[Overloaded] = weakref.WeakSet()

    def make(self) -> Overloaded:
        """One more."""
        error = Overloaded("queue is full")
        self._errors.add(error)
        return error

    @property
    def count(self) -> int:
        """How many nobody has let go of."""
        return len(self._errors)


def test_a_refusal_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    """With the answer gone so is the error: no cycle is left to be found, and held up for, later.

    The requests differ in a header, as those of clients with deadlines do.
    """
    left = Left()
    gc.collect()
    gc.disable()
    try:
        with HttpRig(tmp_path) as rig, rig.connect() as client:
            rig.plane.failures["overloaded"] = left.make
            for number in range(50):
                headers = f"x-request-timeout: 0.{number + 1}\r\n"
                assert client.ask(infer("overloaded", headers=headers)).status == 503
        # The last one may still be on its way out of the listener's thread.
        assert eventually(lambda: left.count <= 1)
    finally:
        gc.enable()


async def test_the_same_over_grpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What carries a refusal ends with its call, on the native front.

    grpcio keeps the error that ended a call in a cycle of its own.
    """
    left = Left()

    async def fail(*_: object) -> None:
        raise left.make()

    async with wire(True, tmp_path) as served:
        monkeypatch.setattr(served.plane, "infer", fail)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await served.stub.ModelInfer(infer_request())
            # The last one may still be on its way out.
            for _ in range(100):
                await asyncio.sleep(0)
            assert left.count <= 1
        finally:
            gc.enable()
