import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import parquet_log
import psutil
import pytest
from label_kit import LabelGateway
from parquet_log import START, prediction_id, row

BATCH = 20
READ = {"authorization": "Bearer labeller-token"}


def answers(path: Path) -> bool:
    """Whether somebody listens."""
    with socket.socket(socket.AF_UNIX) as asking:
        return asking.connect_ex(str(path)) == 0


class Process:
    """Control in a process of its own, asked over its private socket."""

    def __init__(self, gateway: LabelGateway) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "serving.control.process", *gateway.arguments),
                *("--parent", str(os.getpid())),
            ],
            stderr=subprocess.DEVNULL,
        )
        path = gateway.data / "run" / "control.sock"
        self.http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)),
            base_url="http://localhost",
            headers=READ,
            timeout=60,
        )
        end = time.monotonic() + 60
        while not (answers(path) and self.http.get("/api/v1/config").status_code == 200):
            assert time.monotonic() < end, "control does not publish"
            time.sleep(0.05)

    def send(self, first: int) -> httpx.Response:
        """Labels of `BATCH` predictions from `first` on."""
        items = [
            {"prediction_id": prediction_id(START + one, one), "label": one % 2}
            for one in range(first, first + BATCH)
        ]
        return self.http.post("/api/v1/labels", json={"labels": items})

    def kill(self) -> None:
        """End it as the kernel would for want of memory."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Sender(threading.Thread):
    """Sends one batch after the other until nobody answers any more."""

    def __init__(self, control: Process, first: int) -> None:
        super().__init__()
        self.taken = 0
        """Labels that were acknowledged."""
        self.under_way = threading.Event()
        self._control = control
        self._first = first

    def run(self) -> None:
        """Send."""
        try:
            while self._control.send(self._first + self.taken).status_code == 200:
                self.taken += BATCH
                if self.taken >= 5 * BATCH:
                    self.under_way.set()
        except httpx.HTTPError:
            pass
        finally:
            self.under_way.set()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LabelGateway]:
    """A configured gateway whose control process is started by the test."""
    made = LabelGateway(tmp_path)
    made.configure()
    parquet_log.write_log(made.log, [row(START + one, one) for one in range(50)])
    yield made
    made.valkey.stop()


def test_labels_that_were_acknowledged_outlive_control(gateway: LabelGateway) -> None:
    """Killed while labels come in, twice: batches are whole, and none that was answered is gone."""
    acknowledged = 0
    for _ in range(2):
        control = Process(gateway)
        sender = Sender(control, acknowledged)
        sender.start()
        assert sender.under_way.wait(60)
        children = psutil.Process(control.process.pid).children()
        control.kill()
        sender.join()
        control.http.close()
        acknowledged += sender.taken
        _, alive = psutil.wait_procs(children, timeout=30)
        assert alive == [], "the joiner outlives control"
    control = Process(gateway)

    labels: Any = control.http.get("/api/v1/performance/demo").json()["labels"]
    control.kill()
    control.http.close()

    assert labels["kept"] % BATCH == 0
    assert labels["kept"] >= acknowledged >= 10 * BATCH
    assert labels["unreadable"] == 0
