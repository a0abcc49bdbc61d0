"""A whole gateway: answers, labels that turn over, and a program that is asked for training."""

import json
from pathlib import Path
from typing import Any

import gateway_kit
import numpy as np
import onnx_models
from waiting_kit import until

ROWS = 600


def labelled(running: gateway_kit.Running, chance: np.random.Generator, *, turned: bool) -> None:
    """Ask `ROWS` times, and say what came true: nine times of ten what was answered, or not."""
    labels: list[dict[str, Any]] = []
    for _ in range(ROWS):
        data = chance.normal(size=3).tolist()
        body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 3], "data": data}]}
        status, answer = running.ask(f"{running.http}/v2/models/m/infer", body)
        assert status == 200, answer
        [said] = [one["data"][0] for one in answer["outputs"] if one["name"] == "label"]
        right = (chance.random() < 0.9) != turned
        true = int(said) if right else 1 - int(said)
        labels.append({"prediction_id": answer["parameters"]["prediction_id"], "label": true})
    status, taken = running.ask(
        f"{running.admin}/api/v1/labels", {"labels": labels}, token=running.token
    )
    assert status == 200, taken


def test_labels_that_turn_over_have_a_program_asked_once(tmp_path: Path) -> None:
    """Harm by the labels of real answers: first an alert, then one request with its numbers."""
    folder = tmp_path / "gateway"
    gateway_kit.write_gateway(
        folder, engine={"kind": "local", "workers": 1},
        log={"segment_age": "1s", "flush": "50ms", "min_free": "0B"},
    )  # fmt: skip
    retrain = {
        "command": ["sh", "-c", "cat >> asked.jsonl"], "min_labels": 200, "debounce": "1s",
        "tolerance": 0.05,
    }  # fmt: skip
    gateway_kit.write_model(
        folder, "m", {"v1": onnx_models.mlp(3)}, {},
        monitoring={
            "window": "2s",
            "prediction": {"decision": "label", "score": "probabilities[1]"},
            "retrain": retrain,
        },
    )  # fmt: skip
    chance = np.random.default_rng(0)
    with gateway_kit.running(
        folder, "--data", str(folder / "data"), "--engine", "local"
    ) as running:

        def drift() -> Any:
            return running.ask(f"{running.admin}/api/v1/drift/m", token=running.token)[1]

        labelled(running, chance, turned=False)
        until(
            lambda: any(one["baseline_labels"] >= 200 for one in drift()["harm"]),
            "a baseline",
        )
        labelled(running, chance, turned=True)
        asked = folder / "asked.jsonl"
        until(
            lambda: asked.exists() and drift()["retraining"]["request"]["stage"] == "delivered",
            "a delivered request",
        )
        found = drift()

    [event] = [json.loads(line) for line in asked.read_text().splitlines()]
    assert event["id"] == found["retraining"]["request"]["id"]
    assert event["data"]["evidence"]["growth"] > 0.5
    assert event["data"]["digest"]
    levels = [one["level"] for one in reversed(found["events"])]
    assert levels[-1] == "trigger"
