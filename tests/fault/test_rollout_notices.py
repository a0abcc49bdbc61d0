"""Notices of a rollout, from a real gateway whose control is killed while nobody takes them."""

import hashlib
import hmac
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import gateway_kit
import monitoring_kit
import pytest
import rollout_load_kit
from monitoring_kit import Receiver
from waiting_kit import until

STEPS = [{"weight": 5, "bake": {"min": "1h"}}, {"weight": 100}]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Where notices go."""
    with monitoring_kit.receiver() as made:
        yield made


def did(gateway: gateway_kit.Running, url: str) -> bool:
    """Ask for something; control may be on its way back."""
    try:
        return gateway.ask(url, {"reason": "a test"}, token=gateway.token)[0] == 200
    except OSError:
        return False


def test_what_a_killed_control_had_to_tell_comes_from_the_next_one(
    tmp_path: Path, receiver: Receiver
) -> None:
    """Signed, in order, each under one id, and what follows after it."""
    events = ["started", "advanced", "paused", "aborted"]
    target = {"webhook": receiver.url, "secret_file": "hook.key", "events": events}
    rollout_load_kit.configure(
        tmp_path / "config",
        STEPS,
        gateway={"notify": {"private": True}},
        notify=[target, {"file": "told.jsonl", "events": events}],
    )
    (tmp_path / "config" / "hook.key").write_text("of gold\n")
    receiver.answers = [503] * 3

    with gateway_kit.running(tmp_path / "config") as gateway:
        url = f"{gateway.admin}/api/v1/rollouts/{rollout_load_kit.MODEL}"
        until(lambda: bool(receiver.requests), "nobody was told that it began")
        [control] = gateway.pids("control")
        os.kill(control, signal.SIGKILL)
        until(lambda: gateway.pids("control") not in ([], [control]), "control did not come back")
        until(lambda: did(gateway, f"{url}/pause"), "it could not be paused")
        until(lambda: did(gateway, f"{url}/abort"), "it could not be aborted")
        until(lambda: "aborted" in _types(receiver), "nobody was told of the abort")
        lines = (gateway.data / "told.jsonl").read_text().splitlines()

    assert list(dict.fromkeys(_types(receiver))) == events
    for _, headers, body in receiver.requests:
        signature = hmac.new(b"of gold", body, hashlib.sha256).hexdigest()
        assert headers["x-sluice-signature"] == f"sha256={signature}"
    ids = [receiver.body(place)["id"] for place in range(len(receiver.requests))]
    revisions = [int(one.rpartition(".")[2]) for one in ids]
    assert revisions == sorted(revisions)
    assert len(set(ids)) == len(events)
    assert len(lines) >= len(events)


def _types(receiver: Receiver) -> list[str]:
    return [
        receiver.body(place)["type"].removeprefix("dev.sluice.rollout.")
        for place in range(len(receiver.requests))
    ]
