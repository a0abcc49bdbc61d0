"""Everything that watches a model, over a log and labels of a test's own, with a clock to move."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import parquet_log
from control_kit import ConfigDirectory
from parquet_log import START, prediction_id, row

from serving.clock import ManualClock
from serving.config.load import load_directory
from serving.config.snapshot import Snapshot, StagedVersion
from serving.control.audit import AuditLog
from serving.control.monitoring.drift import DriftMonitor
from serving.control.monitoring.events import MonitoringEvents
from serving.control.monitoring.harm import HarmMonitor
from serving.control.training.deliveries import Courier
from serving.control.training.retraining import RetrainingDesk
from serving.recording.label import Label
from serving.recording.labels import LabelStore
from serving.types import Signature

PREDICTION: dict[str, Any] = {"decision": "label", "score": "probabilities[1]"}
SECONDS_APART = 10.0
DIGEST = "d" * 64


class Watch:
    """One model `demo` with v1 in production, predictions ten seconds apart from `START` on."""

    def __init__(
        self, folder: Path, monitoring: dict[str, Any] | None = None, **retrain: Any
    ) -> None:
        self.data = folder / "data"
        self.log = self.data / "predictions"
        self.config = ConfigDirectory(folder / "config")
        settings = {"metric": "error", "min_labels": 500, "debounce": "10m", **retrain}
        self.config.gateway(log={"segment_age": "1s"})
        self.config.model(
            monitoring={
                "window": "1h",
                "prediction": PREDICTION,
                "labels": {"horizon": "1d"},
                "retrain": settings,
                **(monitoring or {}),
            }
        )
        self.clock = ManualClock(wall=START)
        self.lost = 0
        self.labels = LabelStore(self.log / "labels")
        self.made = 0
        self.start()

    def start(self) -> None:
        """Begin as a control process does; again, as one that was started anew."""
        configuration = load_directory(self.config.root).configuration
        staged = StagedVersion(path="", sha256=DIGEST, signature=Signature((), (), True))
        self.snapshot = Snapshot(
            revision=1, published_at=START, author="test", models=configuration.models, views={},
            staged={"demo": {"v1": staged}},
        )  # fmt: skip
        self.harm = HarmMonitor(
            self.data / "harm",
            current=lambda: self.snapshot,
            gateway=lambda: configuration.gateway,
            data=self.data,
            clock=self.clock,
        )
        self.drift = DriftMonitor(
            self.data / "drift",
            current=lambda: self.snapshot,
            harm=self.harm.of,
            lost=lambda: self.lost,
            events=MonitoringEvents(self.data / "journal" / "monitoring.jsonl"),
            clock=self.clock,
        )
        self.retraining = RetrainingDesk(
            self.data / "retraining",
            current=lambda: self.snapshot,
            verdicts=lambda: self.drift.verdicts,
            harm=self.harm.of,
            courier=Courier(loopback=True),
            audit=AuditLog(self.data / "journal", self.clock),
            directory=lambda: self.config.root,
            source=lambda: "http://127.0.0.1:8002",
            log=lambda: str(self.log),
            clock=self.clock,
        )

    def serve(self, scores: np.ndarray, truth: np.ndarray, *, version: str = "v1") -> None:
        """Log predictions of shape [n], label each five minutes later, and move the clock on."""
        places = range(self.made, self.made + len(scores))
        times = [START + SECONDS_APART * place for place in places]
        rows = [
            row(at, place, version=version, score=float(score), digest=DIGEST)
            for at, place, score in zip(times, places, scores, strict=True)
        ]
        parquet_log.write_log(self.log, rows, f"part-{self.made}")
        labels = [
            Label(
                model="demo", prediction_id=prediction_id(at, place, version=version), row=0,
                entity="", time=0, tolerance=0.0, number=float(true), text="",
                label_time=int((at + 300) * 1e6), source="test",
            )
            for at, place, true in zip(times, places, truth, strict=True)
        ]  # fmt: skip
        self.made += len(rows)
        self.clock.advance(START + SECONDS_APART * self.made + 300 - self.clock.wall())
        self.labels.append(labels, actor="test", received=int(self.clock.wall() * 1e6))

    async def look(self) -> None:
        """Everything looks once, twelve seconds after labels came and again."""
        await self.harm.look("demo")
        self.clock.advance(12)
        while await self.harm.look("demo"):
            pass
        self.drift.turn()
        await self.retraining.look("demo")

    async def pass_time(self, seconds: float, *, step: float = 300.0) -> None:
        """Let time pass, everything looking again every so often."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            await self.harm.look("demo")
            self.drift.turn()
            await self.retraining.look("demo")

    async def sent(self) -> None:
        """Wait for deliveries that are under way."""
        for task in list(self.retraining._sending.values()):
            await task

    async def close(self) -> None:
        """End the joiner."""
        await self.harm._joiner.close()
        self.labels.close()

    def audit(self) -> list[dict[str, Any]]:
        """Every line of the audit log."""
        lines = (self.data / "journal" / "audit.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


class Receiver:
    """A real HTTP server that remembers what it was sent and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        """Statuses of the next answers; then 202."""
        self.url = ""

    def body(self, place: int) -> Any:
        """A request's JSON."""
        return json.loads(self.requests[place][2])


@contextmanager
def receiver() -> Iterator[Receiver]:
    """One on a free port of loopback."""
    made = Receiver()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.requests.append((self.path, headers, body))
            self.send_response(made.answers.pop(0) if made.answers else 202)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}/requests"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
