"""An open-loop load over gRPC, sent by tritonclient as its users would: one client, no retries."""

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import tritonclient.grpc as triton

BOUND_SECONDS = 10.0


class GrpcLoad:
    """`rate` calls a second of `model`, whose input is `X` [1, 3], until the block ends."""

    def __init__(self, address: str, model: str, *, rate: float = 50.0) -> None:
        self.failures: list[str] = []
        self.answered: list[float] = []
        self.sent = 0
        self._address, self._model, self._rate = address, model, rate
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait for what is in flight."""
        self._ending.set()
        self._thread.join(BOUND_SECONDS * 2)
        assert not self._thread.is_alive()

    @property
    def longest_gap(self) -> float:
        """The longest time in which no call succeeded, in seconds."""
        return max((b - a for a, b in pairwise(sorted(self.answered))), default=0.0)

    def summary(self) -> str:
        """Calls, failures and the longest gap, for people."""
        kinds = "; ".join(sorted(set(self.failures)))[:200]
        return (
            f"{self.sent} calls, {len(self.failures)} failed{f' ({kinds})' if kinds else ''}, "
            f"longest gap {self.longest_gap * 1e3:.0f} ms"
        )

    def _run(self) -> None:
        values = triton.InferInput("X", [1, 3], "FP32")
        values.set_data_from_numpy(np.array([[1, 2, 3]], dtype=np.float32))
        with contextlib.closing(triton.InferenceServerClient(self._address)) as client:
            due = time.monotonic()
            while not self._ending.is_set():
                time.sleep(max(0.0, due - time.monotonic()))
                self.sent += 1
                client.async_infer(self._model, [values], self._done, client_timeout=BOUND_SECONDS)
                due += 1 / self._rate
            until = time.monotonic() + BOUND_SECONDS
            while len(self.answered) + len(self.failures) < self.sent:
                assert time.monotonic() < until, "calls without an outcome"
                time.sleep(0.01)

    def _done(self, result: Any, error: Any) -> None:
        del result
        if error is None:
            self.answered.append(time.monotonic())
        else:
            self.failures.append(f"{error.status()}: {error.message()}")


@contextlib.contextmanager
def grpc_load(address: str, model: str, *, rate: float = 50.0) -> Iterator[GrpcLoad]:
    """A load that runs while the block does."""
    one = GrpcLoad(address, model, rate=rate)
    one.start()
    try:
        yield one
    finally:
        one.stop()
