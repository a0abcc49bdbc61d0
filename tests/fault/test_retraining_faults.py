"""Control is killed between a decision and its delivery: it is delivered, with the same id."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import monitoring_kit
import pytest
from control_kit import ConfigDirectory, Valkey, ask_control
from waiting_kit import until


class Home:
    """Control as a process, over a model that asks the receiver for training."""

    def __init__(self, folder: Path, url: str) -> None:
        self.data = folder / "data"
        self.config = ConfigDirectory(folder / "config")
        self.config.gateway(listen={"admin": "127.0.0.1:0"}, log={})
        self.config.model(
            monitoring={
                "prediction": {"task": "regression", "decision": "Y"},
                "retrain": {"webhook": url, "metric": "absolute_error"},
            }
        )
        self.valkey = Valkey(folder / "valkey")

    def start(self) -> "subprocess.Popen[bytes]":
        """Start control and wait until it has published."""
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "serving.control.process", "--data", str(self.data)),
                *("--config", str(self.config.root), "--admin", "127.0.0.1:0"),
                *("--store", self.valkey.url, "--parent", str(os.getpid())),
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            until(
                lambda: (
                    process.poll() is not None
                    or self.ask("GET", "/api/v1/retraining/demo")[0] == 200
                ),
                "control is up",
            )
            assert process.poll() is None, "control has ended"
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Ask control over its private socket; status 0 if it does not answer."""
        return ask_control(self.data, method, path)

    def status(self) -> Any:
        """Where the model stands."""
        return self.ask("GET", "/api/v1/retraining/demo")[1]


@pytest.mark.parametrize("answers", [[503], []], ids=["before", "after"])
def test_a_killed_control_delivers_at_least_once_with_one_id(
    tmp_path: Path, answers: list[int]
) -> None:
    """Killed before anybody had taken it, or after: the same id arrives, and is audited."""
    with monitoring_kit.receiver() as receiver:
        home = Home(tmp_path, receiver.url)
        # Before: nobody takes it as long as the first control lives.
        receiver.answers = answers * 1000
        first = home.start()
        try:
            status, asked = home.ask("POST", "/api/v1/retraining/demo/ask")
            assert status == 200, asked
            until(lambda: bool(receiver.requests), "an attempt")
            first.send_signal(signal.SIGKILL)
            first.wait()
            receiver.answers.clear()
            second = home.start()
            until(lambda: home.status()["request"]["stage"] == "delivered", "it is delivered")
            second.send_signal(signal.SIGTERM)
            second.wait()
        finally:
            first.kill()
            first.wait()
            home.valkey.stop()

        bodies = {body for _, _, body in receiver.requests}
        assert len(bodies) == 1
        assert receiver.body(0)["id"] == asked["request"]["id"]
        lines = (home.data / "journal" / "audit.jsonl").read_text().splitlines()
        verbs = [json.loads(line)["verb"] for line in lines]
        assert "retraining asked" in verbs
        # Once by each at most: the first may have been killed right after the line.
        assert verbs.count("retraining delivered") in (1, 2)


def test_a_decision_that_was_only_written_is_sent(tmp_path: Path) -> None:
    """Killed between the file and everything else: the next control sends and audits it."""
    with monitoring_kit.receiver() as receiver:
        home = Home(tmp_path, receiver.url)
        first = home.start()
        first.send_signal(signal.SIGKILL)
        first.wait()
        request = {
            "id": "0b5e", "at": time.time(), "asked_by": "monitoring", "words": "asked",
            "event": '{"id":"0b5e"}',
        }  # fmt: skip
        kept = {"state": {"asked": [request["at"]], "in_flight": True}, "request": request}
        (home.data / "retraining").mkdir(exist_ok=True)
        (home.data / "retraining" / "demo.json").write_text(json.dumps(kept))
        second = home.start()
        try:
            until(lambda: home.status()["request"]["stage"] == "delivered", "it is delivered")
            second.send_signal(signal.SIGTERM)
            second.wait()
        finally:
            second.kill()
            second.wait()
            home.valkey.stop()

        assert [body for _, _, body in receiver.requests] == [b'{"id":"0b5e"}']
        lines = (home.data / "journal" / "audit.jsonl").read_text().splitlines()
        verbs = [json.loads(line)["verb"] for line in lines]
        assert verbs == ["retraining asked", "retraining delivered"]
