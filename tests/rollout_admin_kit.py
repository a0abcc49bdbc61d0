"""An admin port that knows of one rollout and of nothing else, for the commands."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from serving.rollout.standing import RolloutStanding, RuleStanding
from serving.rollout.state import Arms, Event, Kind, Phase

STEPS = ["shadow 25 %", "weight 5 %", "approval of fraud-ml", "weight 100 %"]
WHAT: dict[str, tuple[Kind, Phase]] = {
    "promote": ("stepped", "progressing"),
    "pause": ("paused", "paused"),
    "resume": ("resumed", "progressing"),
    "approve": ("approved", "progressing"),
    "abort": ("aborting", "aborting"),
}


def rule(**fields: Any) -> RuleStanding:
    """A rule that has seen something and proven nothing."""
    told: dict[str, Any] = {
        "name": "errors", "metric": "error_rate", "test": "relative", "verdict": "undecided",
        "canary_events": 12, "canary_units": 1203, "production_events": 240,
        "production_units": 24010, "value": 1.02, "low": 0.61, "high": 1.72, "proof": 0.45,
        "eta": 480.0, "action": "abort",
    }  # fmt: skip
    return RuleStanding(**{**told, **fields})


def standing(**fields: Any) -> RolloutStanding:
    """A rollout in its second of four steps."""
    now = time.time()
    told: dict[str, Any] = {
        "id": "demo-r3", "model": "demo", "canary": "v2", "production": "v1",
        "phase": "progressing", "step": 1, "steps": STEPS, "revision": 7, "began": now - 7200,
        "step_began": now - 720, "weight": 5.0, "shadow": 0.0, "rules": [rule()],
    }  # fmt: skip
    return RolloutStanding(**{**told, **fields})


class Admin:
    """What the port knows. Tests change it as they go."""

    def __init__(self) -> None:
        self.url = ""
        self.now: RolloutStanding | None = standing()
        self.coming: list[RolloutStanding] = []
        """What is answered next, one a look; then the last one for ever."""
        self.events = [
            Event(
                revision=1, at=time.time() - 7200, kind="started", who="ada",
                arms=Arms(canary="v2", production="v1", steps=STEPS),
            ),
            Event(
                revision=7, at=time.time() - 720, kind="stepped", who="controller", step=1,
                reason="the step has what it asks for", evidence={"errors": "3 of 900"},
            ),
        ]  # fmt: skip
        self.asked: list[tuple[str, Any]] = []
        self.meanwhile: Event | None = None
        """What happens between the look and the order."""

    def get(self, path: str) -> tuple[int, Any]:
        """What a GET is answered."""
        if path == "/api/v1/rollouts":
            return 200, [self.now] if self.now is not None else []
        if self.now is None or path.split("/")[4] != self.now.model:
            return 404, {"error": f"model '{path.split('/')[4]}' has no rollout"}
        if path.endswith("/history"):
            return 200, {"rollouts": [{"id": self.now.id, "events": self.events}]}
        if self.coming:
            self.now = self.coming.pop(0)
        return 200, self.now

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """What a POST is answered."""
        verb = path.rpartition("/")[2]
        self.asked.append((verb, body))
        assert self.now is not None
        if self.meanwhile is not None:
            self.events.append(self.meanwhile)
            self.now = standing(revision=self.meanwhile.revision, phase="paused")
        if body["expected_revision"] != self.now.revision:
            return 409, {"error": f"it is at revision {self.now.revision}"}
        if verb == "approve" and self.now.phase != "awaiting_approval":
            return 409, {"error": "a rollout that is progressing cannot be approved"}
        if verb == "retry":
            self.now = standing(id="demo-r4", revision=1, phase="pending", step=0)
            return 200, self.now
        kind, phase = WHAT[verb]
        happened = Event(
            revision=self.now.revision + 1, at=time.time(), kind=kind, who="ada",
            reason=body["reason"],
        )  # fmt: skip
        self.events.append(happened)
        self.now = standing(revision=happened.revision, phase=phase, reason=body["reason"])
        return 200, self.now


@contextmanager
def admin() -> Iterator[Admin]:
    """One on a free port of loopback."""
    made = Admin()

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(*made.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._answer(*made.post(self.path, body))

        def _answer(self, status: int, value: Any) -> None:
            content = msgspec.json.encode(value)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
