"""`sluice up` on the demo answers real people over HTTP and gRPC, and leaves nothing behind."""

import importlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest

from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo"
EXAMPLES = (
    "example-request-features.json",
    "example-request-x.json",
    "example-request.json",
)


@pytest.fixture(scope="module")
def starter() -> Iterator[Any]:
    """The benchmark's own way of starting and stopping a gateway."""
    sys.path.insert(0, str(ROOT / "loadtests"))
    yield importlib.import_module("bench_gateway")
    sys.path.remove(str(ROOT / "loadtests"))


@pytest.fixture(scope="module")
def gateway(starter: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The demo on free ports, once for this file."""
    folder = tmp_path_factory.mktemp("demo")
    body = (DEMO / EXAMPLES[0]).read_bytes()
    directory = starter.demo_directory(folder / "demo")
    with starter.running(directory, folder / "data", model="employment", body=body) as running:
        yield running


def expected(version: str) -> dict[str, Any]:
    """What the shipped file says of the example's person."""
    [tensor] = [
        tensor
        for tensor in json.loads((DEMO / EXAMPLES[1]).read_text())["inputs"]
        if tensor["name"] == "X"
    ]
    session = onnxruntime.InferenceSession(
        DEMO / "artifacts" / f"employment-{version}.onnx", providers=["CPUExecutionProvider"]
    )
    row = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
    label, probabilities = session.run(["label", "probabilities"], {"X": row})
    return {"label": label.tolist(), "probabilities": probabilities.ravel().tolist()}


def ask(gateway: Any, path: str, body: bytes | None = None) -> dict[str, Any]:
    """Send one HTTP request; the answer must be 200 JSON."""
    request = urllib.request.Request(f"http://{gateway.http}{path}", data=body)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_requests_get_the_models_numbers(gateway: Any, example: str) -> None:
    """One tensor a feature, the whole input, or the key: v1 answers what the file says."""
    body = (DEMO / example).read_bytes()
    answer = ask(gateway, "/v2/models/employment/infer", body)
    give_up = time.monotonic() + 60
    # The gateway answers, from defaults, before its features are loaded.
    while answer["parameters"].get("feature_status", "OK") != "OK" and time.monotonic() < give_up:
        time.sleep(0.05)
        answer = ask(gateway, "/v2/models/employment/infer", body)

    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert answer["model_version"] == "v1"
    assert outputs["label"] == expected("v1")["label"]
    assert outputs["probabilities"] == pytest.approx(expected("v1")["probabilities"], abs=1e-5)


def test_the_second_version_answers_when_asked_for(gateway: Any) -> None:
    """v2 takes the same request under its own path."""
    body = (DEMO / EXAMPLES[0]).read_bytes()
    answer = ask(gateway, "/v2/models/employment/versions/v2/infer", body)

    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert answer["model_version"] == "v2"
    assert outputs["probabilities"] == pytest.approx(expected("v2")["probabilities"], abs=1e-5)


def test_metadata_lists_key_features_and_whole_input(gateway: Any) -> None:
    """A client can see that it may send person_id, any feature, or X."""
    inputs = {tensor["name"] for tensor in ask(gateway, "/v2/models/employment")["inputs"]}
    sent = {t["name"] for t in json.loads((DEMO / EXAMPLES[0]).read_text())["inputs"]}

    assert sent | {"X"} == inputs


def test_grpc_gets_the_same_numbers(gateway: Any) -> None:
    """The same person over gRPC with raw contents."""
    message = pb.ModelInferRequest(model_name="employment")
    dtypes = {"INT64": "<i8", "INT32": "<i4", "FP32": "<f4"}
    for tensor in json.loads((DEMO / EXAMPLES[0]).read_text())["inputs"]:
        message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        data = np.array(tensor["data"], dtypes[tensor["datatype"]])
        message.raw_input_contents.append(data.tobytes())

    with grpc.insecure_channel(gateway.grpc) as channel:
        answer = pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=10)

    raw = dict(
        zip((output.name for output in answer.outputs), answer.raw_output_contents, strict=True)
    )
    found = np.frombuffer(raw["probabilities"], "<f4").tolist()
    assert found == pytest.approx(expected("v1")["probabilities"], abs=1e-5)


def test_nothing_is_left_when_it_has_been_stopped(starter: Any, tmp_path: Path) -> None:
    """Engine, store, control and worker are gone after SIGTERM, and the ports refuse."""
    body = (DEMO / EXAMPLES[0]).read_bytes()
    directory = starter.demo_directory(tmp_path / "demo")
    with starter.running(directory, tmp_path / "data", model="employment", body=body) as running:
        family = starter.tree(running.pid)
        assert {running.role(pid) for pid in family} >= {"engine", "store", "control", "worker"}

    assert [pid for pid in family if os.path.exists(f"/proc/{pid}")] == []  # noqa: PTH110
    with pytest.raises(OSError, match="refused"):
        ask(running, "/v2/health/live")
