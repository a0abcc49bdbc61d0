"""Control as a process over a real store, and a thread that does what a worker would."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import redis
from control_kit import ConfigDirectory, Valkey, ask_control
from waiting_kit import until

from serving.config.keys import SNAPSHOT_KEY, WORKERS_KEY, WorkerReport
from serving.config.snapshot import RolloutTraffic
from serving.config.snapshot_codec import decode_snapshot
from serving.control.publishing.journal import Journal
from serving.control.rollouts.log import EVENTS_FILE, read_events
from serving.rollout.state import Event
from serving.rollout.wire import (
    Arms,
    Batch,
    Cells,
    Share,
    Unfolded,
    encode_unfolded,
    evidence_key,
    folded_key,
)

INCARNATION = "worker-0-1"


class Worker(threading.Thread):
    """Serves every snapshot at once, and counts evenly; `bad` has the canary fail."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._redis = redis.Redis.from_url(url)
        self._batches: list[Batch] = []
        self._rollout = ""
        self._number = 0
        self.bad = False
        self.over = threading.Event()

    def run(self) -> None:
        """Work until `over`."""
        while not self.over.wait(0.02):
            content = self._redis.get(SNAPSHOT_KEY)
            snapshot = decode_snapshot(content) if isinstance(content, bytes) else None
            report = WorkerReport(
                worker="worker-0",
                state="ready",
                revision=snapshot.revision if snapshot is not None else 0,
                reported_at=time.time(),
            )
            self._redis.hset(WORKERS_KEY, report.key, msgspec.json.encode(report))
            put = snapshot.rollouts.get("demo") if snapshot is not None else None
            if put is not None and put.counting:
                self._count(put)
        self._redis.close()

    def _count(self, put: RolloutTraffic) -> None:
        if put.id != self._rollout:
            self._rollout, self._number, self._batches = put.id, 0, []
        folded = int(self._redis.hget(folded_key(put.id), INCARNATION) or 0)  # type: ignore[arg-type]
        self._batches = [batch for batch in self._batches if batch.number > folded]
        self._number += 1
        rho = put.weight / 100
        errors = Arms(canary=Cells(unkeyed=5 if self.bad else 0), production=Cells(unkeyed=1))
        exposed = Arms(
            canary=Cells(unkeyed=round(1000 * rho)),
            production=Cells(unkeyed=round(1000 * (1 - rho))),
        )
        share = Share(
            rho=rho,
            requests=[exposed.canary.unkeyed, exposed.production.unkeyed],
            exposed=exposed,
            events={"errors": errors},
            excluded={},
        )
        batch = Batch(
            number=self._number, at=time.time(), step=put.step, shadow={}, seconds=[[], []],
            shares=[share] if 0 < rho < 1 else [],
        )  # fmt: skip
        self._batches.append(batch)
        told = Unfolded(worker="worker-0", incarnation=INCARNATION, batches=self._batches)
        self._redis.hset(evidence_key(put.id), INCARNATION, encode_unfolded(told))


class Home:
    """One data directory, one store, one worker; control comes and goes."""

    def __init__(self, folder: Path, rollout: dict[str, Any]) -> None:
        self.data = folder / "data"
        self.config = ConfigDirectory(folder / "config")
        self.config.gateway(listen={"admin": "127.0.0.1:0"})
        self.config.model(rollout=rollout)
        self.valkey = Valkey(folder / "valkey")
        self.worker = Worker(self.valkey.url)
        self.worker.start()
        self.control: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start control; it is not waited for."""
        self.control = subprocess.Popen(
            [
                *(sys.executable, "-m", "serving.control.process", "--data", str(self.data)),
                *("--config", str(self.config.root), "--admin", "127.0.0.1:0"),
                *("--store", self.valkey.url, "--parent", str(os.getpid())),
            ],
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """End control without a word."""
        assert self.control is not None
        assert self.control.poll() is None, "control has ended by itself"
        self.control.send_signal(signal.SIGKILL)
        self.control.wait()

    def close(self) -> None:
        """End everything."""
        if self.control is not None:
            self.control.kill()
            self.control.wait()
        self.worker.over.set()
        self.worker.join()
        self.valkey.stop()

    @property
    def events(self) -> list[Event]:
        """What stands on the disk of demo-r1."""
        path = self.data / "rollouts" / "demo" / "demo-r1" / EVENTS_FILE
        return read_events(path) if path.exists() else []

    @property
    def lines(self) -> int:
        """Whole lines there; cheap enough to look every millisecond."""
        path = self.data / "rollouts" / "demo" / "demo-r1" / EVENTS_FILE
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for_line(self, number: int) -> None:
        """Until so many events stand there."""
        until(lambda: self.lines >= number, f"event {number}")

    def wait_for(self, kind: str) -> None:
        """Until an event of that kind stands there."""
        until(lambda: any(event.kind == kind for event in self.events), kind)

    def kill_at_random(self, generator: random.Random, seconds: float) -> None:
        """Start control, and kill it some time after it has begun to publish."""
        self.start()
        ready = self.data / "run" / "control.epoch"
        ready.unlink(missing_ok=True)
        until(ready.exists, "control is up")
        time.sleep(generator.uniform(0.0, seconds))
        self.kill()

    def published(self) -> list[RolloutTraffic]:
        """What workers were told of the rollout, oldest first."""
        journal = Journal(self.data / "journal")
        return [
            entry.snapshot.rollouts["demo"]
            for entry in journal.newest(1000)
            if "demo" in entry.snapshot.rollouts
        ]

    def audited(self) -> list[tuple[str, int]]:
        """Verb and revision of every event in the audit log."""
        lines = (self.data / "journal" / "audit.jsonl").read_bytes().splitlines()
        records = [json.loads(line) for line in lines]
        return [(one["verb"], one["revision"]) for one in records if one["subject"] == "demo-r1"]

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Ask control over its private socket; status 0 if it does not answer."""
        return ask_control(self.data, method, path)
