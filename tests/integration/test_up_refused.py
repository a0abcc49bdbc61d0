"""A start that can never become ready: every worker refuses what control published."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import gateway_kit
import onnx_models
import psutil


def test_a_configuration_that_every_worker_refuses_ends_the_start(tmp_path: Path) -> None:
    """`sluice up` exits with 1 and the workers' reasons, and leaves nothing behind.

    Control believes what it remembers of an earlier check; here that is of another model.
    """
    directory = tmp_path / "gateway"
    content = onnx_models.doubler()
    gateway_kit.write_gateway(directory)
    gateway_kit.write_model(directory, "m", {"v1": content}, {})
    remembered = directory / ".sluice" / "checked" / f"{hashlib.sha256(content).hexdigest()}.json"
    with gateway_kit.running(directory, "--data", str(directory / ".sluice")) as gateway:
        token = gateway.data / "admin.token"
    known = json.loads(remembered.read_bytes())
    known["signature"]["outputs"][0]["name"] = "Z"
    remembered.write_text(json.dumps(known))
    for state in ("journal", "store", "snapshot.json"):
        subprocess.run(["rm", "-r", directory / ".sluice" / state], check=True)

    ended = subprocess.run(
        [gateway_kit.SLUICE, "up", directory, "--workers", "2"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip

    assert ended.returncode == 1, ended.stderr
    reason = "its inputs or outputs are not those found when it was checked"
    for worker in ("worker-0", "worker-1"):
        assert any(
            line.startswith(worker) and reason in line
            for line in ended.stderr.partition("no worker can serve")[2].splitlines()
        ), ended.stderr
    assert "Traceback" not in ended.stderr
    assert token.exists()
    run = directory / ".sluice" / "run"
    assert {file.name for file in run.iterdir()} <= {"control.epoch"}
    assert not [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(directory) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
    ]
