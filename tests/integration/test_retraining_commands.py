"""Requests for training and candidates, over a real control process."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import onnx_models
import pytest
import yaml
from label_kit import MONITORING, LabelGateway

RETRAIN = {"command": ["sh", "-c", "cat > asked; echo queued"]}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LabelGateway]:
    """A gateway whose model asks a program."""
    made = LabelGateway(tmp_path)
    await made.start({**MONITORING, "retrain": RETRAIN})
    yield made
    await made.close()


async def post(gateway: LabelGateway, path: str, body: Any = None, who: str = "") -> Any:
    """POST as the admin, or as somebody else."""
    token = f"{who}-token" if who else (gateway.data / "admin.token").read_text().strip()
    return await gateway.http.post(
        path, json=body or {}, headers={"authorization": f"Bearer {token}"}
    )


async def delivered(gateway: LabelGateway) -> Any:
    """The status, once the request is delivered."""
    for task in list(gateway.control._plane.retraining._sending.values()):
        await task
    return (await gateway.sluice("retraining", "status", "demo", "--json")).stdout


async def test_a_request_goes_from_a_person_to_a_program_and_ends(gateway: LabelGateway) -> None:
    """Asked, delivered, refused while it runs, ended by a pipeline's token."""
    asked = await post(gateway, "/api/v1/retraining/demo/ask", {"reason": "a new form"})
    status = json.loads(await delivered(gateway))
    again = await post(gateway, "/api/v1/retraining/demo/ask")
    ended = await gateway.sluice("retraining", "ended", "demo", "--not-improved", "--json")
    twice = await gateway.sluice("retraining", "ended", "demo", "--improved")

    assert asked.status_code == 200, asked.text
    assert status["request"]["stage"] == "delivered"
    assert status["request"]["said"].endswith("it said: queued")
    event = json.loads((gateway.config.root / "asked").read_text())
    assert event["data"]["reasons"] == ["a new form"]
    assert event["data"]["asked_by"] == "admin-token"
    assert event["data"]["results"]["ended"] == f"{gateway.url}/api/v1/retraining/demo/ended"
    assert again.status_code == 409
    assert json.loads(ended.stdout)["failures"] == 1
    assert twice.exit_code == 1
    assert "no training of 'demo' is running" in twice.stderr


@pytest.mark.parametrize(("verb", "status"), [("ask", 403), ("resume", 403), ("ended", 409)])
async def test_a_pipeline_may_end_a_training_and_nothing_else(
    gateway: LabelGateway, verb: str, status: int
) -> None:
    """The role `operator`; asking and resuming need `admin`."""
    answer = await post(
        gateway, f"/api/v1/retraining/demo/{verb}", {"improved": True} if verb == "ended" else {},
        who="labeller",
    )  # fmt: skip

    assert answer.status_code == status


async def test_drift_tells_of_retraining_too(gateway: LabelGateway) -> None:
    """One place to look at."""
    answer = await gateway.http.get(
        "/api/v1/drift/demo", headers={"authorization": "Bearer labeller-token"}
    )

    assert answer.status_code == 200, answer.text
    assert answer.json()["retraining"]["asks"] == "command"
    assert answer.json()["events"] == []


async def test_a_candidate_by_the_admin_port_is_a_published_shadow(
    gateway: LabelGateway, tmp_path: Path
) -> None:
    """Then, and only then, it may be production."""
    file = onnx_models.save(tmp_path / "new.onnx", onnx_models.mlp(3, seed=9))
    body = {"file": str(file), "version": "v3", "percent": 10, "wait_seconds": 0}

    brought = await post(gateway, "/api/v1/candidates/demo", body)
    model = gateway.config.root / "models" / "demo.yaml"
    as_shadow = model.read_text()
    told = yaml.safe_load(as_shadow)
    del told["traffic"]["shadow"]
    as_production = yaml.safe_dump({**told, "traffic": {**told["traffic"], "production": "v3"}})
    model.write_text(as_production)
    apply = {"directory": str(gateway.config.root), "wait_seconds": 0}
    too_soon = await post(gateway, "/api/v1/config/apply", apply)
    model.write_text(as_shadow)
    shadow = await post(gateway, "/api/v1/config/apply", apply)
    model.write_text(as_production)
    promoted = await post(gateway, "/api/v1/config/apply", apply)

    assert brought.status_code == 200, brought.text
    assert brought.json()["candidate"]["file"] == "../artifacts/demo-v3.onnx"
    assert not brought.json()["published"]
    assert too_soon.status_code == 400
    assert "was never a shadow, so it cannot be production" in too_soon.json()["error"]
    assert shadow.status_code == 200, shadow.text
    assert promoted.status_code == 200, promoted.text


async def test_a_bad_candidate_by_the_admin_port_is_refused(
    gateway: LabelGateway, tmp_path: Path
) -> None:
    """With the reason, and nothing is changed."""
    model = gateway.config.root / "models" / "demo.yaml"
    before = model.read_text()
    file = onnx_models.save(tmp_path / "bad.onnx", b"no model")

    answer = await post(
        gateway, "/api/v1/candidates/demo", {"file": str(file), "version": "v3", "apply": True}
    )

    assert answer.status_code == 400
    assert "the file must not be served: " in answer.json()["error"]
    assert model.read_text() == before
