"""A rollout's weights and the fallback on a real gateway, under load and through both listeners."""

import asyncio
import contextlib
import http.client
import http.server
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import gateway_kit
import grpc
import numpy as np
import onnx_models
import pytest
import yaml
from msgspec.structs import replace
from ray_kit import eventually

from serving.config.snapshot import RolloutTraffic
from serving.control.stores.redis_store import RedisStore
from serving.protocol._generated import inference_pb2 as pb
from serving.protocol._generated import inference_pb2_grpc as pb_grpc

pytestmark = pytest.mark.timeout(240)

FALLBACK = {"on_canary_error": "production", "budget": 1.0}
EVERYTHING = {"canary": {"version": "v2", "weight": 100}, "fallback": FALLBACK}
DEADLINE = {"serve": {"deadline": "3s"}}
KEYED = {"assignment": {"key": "user"}}
KEYS_EACH = 40
STEPS = (5.0, 25.0, 50.0, 100.0)


class Silent(http.server.BaseHTTPRequestHandler):
    """Another server of the protocol: says what it serves, and never answers an inference."""

    protocol_version = "HTTP/1.1"
    over = threading.Event()
    asked = threading.Event()

    def do_GET(self) -> None:
        """Name itself, or describe the model."""
        tensor = {"datatype": "FP32", "shape": [-1, 1]}
        said = (
            {"name": "m", "inputs": [{"name": "X", **tensor}], "outputs": [{"name": "Y", **tensor}]}
            if "models" in self.path
            else {"name": "silent", "version": "1", "extensions": []}
        )
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Read, and say nothing until the test is over."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.set()
        self.over.wait(120)

    def log_message(self, *arguments: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def silent() -> Iterator[str]:
    """Its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        Silent.over.set()
        server.shutdown()
        serving.join(10)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, silent: str) -> Iterator[gateway_kit.Running]:
    """Two workers; `m` to roll out, and models whose canaries fail, are silent, or get stopped."""
    folder = tmp_path_factory.mktemp("rollout") / "conf"
    two = {"v1": onnx_models.doubler(), "v2": onnx_models.squarer(1)}
    gateway_kit.write_gateway(folder, engine={"kind": "local", "workers": 2})
    gateway_kit.write_model(folder, "m", two, KEYED, entity={"user": "INT64"}, **DEADLINE)
    failing = {"v1": onnx_models.picky(1000), "v2": onnx_models.picky(10)}
    gateway_kit.write_model(folder, "failing", failing, EVERYTHING, **DEADLINE)
    mean = {**EVERYTHING, "fallback": {**FALLBACK, "budget": 0.0}}
    gateway_kit.write_model(folder, "mean", failing, mean, **DEADLINE)
    gateway_kit.write_model(folder, "hung", {"v1": two["v1"]}, EVERYTHING, **DEADLINE)
    file = folder / "models" / "hung.yaml"
    document = yaml.safe_load(file.read_text())
    document["versions"]["v2"] = {"url": f"{silent}/v2/models/m"}
    file.write_text(yaml.safe_dump(document))
    own = {"serve": {"placement": "dedicated", "deadline": "3s"}}
    gateway_kit.write_model(folder, "stopped", two, EVERYTHING, **own)
    with gateway_kit.running(folder) as running:
        yield running


def tensor(value: float, datatype: str = "FP32") -> list[dict[str, Any]]:
    """One row of X."""
    return [{"name": "X", "datatype": datatype, "shape": [1, 1], "data": [value]}]


def over_grpc(
    gateway: gateway_kit.Running, model: str, value: int, dtype: str
) -> pb.ModelInferResponse:
    """Ask a model for one row of X over gRPC."""
    message = pb.ModelInferRequest(model_name=model)
    datatype = {"<i8": "INT64", "<f4": "FP32"}[dtype]
    message.inputs.add(name="X", datatype=datatype, shape=[1, 1])
    message.raw_input_contents.append(np.array([value], dtype).tobytes())
    with grpc.insecure_channel(gateway.grpc) as channel:
        return pb_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=20)


def fell_back(gateway: gateway_kit.Running, model: str, outcome: str = "answered") -> float:
    """How many of a model's requests ended like this, over all workers."""
    line = f'sluice_fallback_total{{model="{model}",outcome="{outcome}"}}'
    text = gateway.ask(f"{gateway.admin}/metrics")[1]
    return sum(float(one.split()[-1]) for one in text.splitlines() if one.startswith(line))


class Keyed(threading.Thread):
    """One keep-alive connection with keys of its own; what each got, in order."""

    def __init__(self, address: str, first: int) -> None:
        super().__init__(daemon=True)
        self._address = address
        self._keys = range(first, first + KEYS_EACH)
        self.stop = threading.Event()
        self.seen: dict[int, list[str]] = {key: [] for key in self._keys}
        self.failures: list[str] = []

    def run(self) -> None:
        """Ask for one key after the other until told to stop."""
        connection = http.client.HTTPConnection(self._address, timeout=30)
        while not self.stop.is_set():
            for key in self._keys:
                user = {"name": "user", "datatype": "INT64", "shape": [1], "data": [key]}
                body = json.dumps({"inputs": [*tensor(3), user]})
                connection.request("POST", "/v2/models/m/infer", body)
                answer = connection.getresponse()
                text = json.loads(answer.read())
                if answer.status == 200:
                    self.seen[key].append(text["model_version"])
                else:
                    self.failures.append(f"{answer.status} {text}")
        connection.close()

    @property
    def rounds(self) -> int:
        """How often every key was asked for."""
        return min(len(versions) for versions in self.seen.values())


def published(gateway: gateway_kit.Running, rollout: RolloutTraffic) -> None:
    """Publish the rollout's next word as control does, and wait until both workers serve it."""

    async def publish() -> int:
        store = RedisStore(f"unix://{gateway.data}/store/store.sock")
        try:
            snapshot = await store.snapshot()
            assert snapshot is not None
            new = replace(snapshot, revision=snapshot.revision + 1, rollouts={"m": rollout})
            assert await store.publish(new)
        finally:
            await store.close()
        return new.revision

    revision = asyncio.run(publish())

    def serve_it() -> bool:
        workers = gateway.ask(f"{gateway.admin}/api/v1/status")[1]["workers"]
        return len(workers) == 2 and all(one["revision"] >= revision for one in workers)

    eventually(serve_it, f"both workers serve revision {revision}")


def test_a_rising_weight_loses_no_request_and_sends_no_key_back(
    gateway: gateway_kit.Running,
) -> None:
    """From the shadow step to the end of the rollout, with every key asked for all the time."""
    load = [Keyed(gateway.http, 1000 * number) for number in range(4)]
    for one in load:
        one.start()
    try:
        rollout = RolloutTraffic(
            id="m-r1", revision=1, canary="v2", production="v1", shadow=25.0, salt="m-r1"
        )
        words = [replace(rollout, shadow=0.0, weight=weight) for weight in STEPS]
        for word in [rollout, *words, replace(rollout, shadow=0.0, production="v2")]:
            published(gateway, word)
            ends = {one: one.rounds + 2 for one in load}
            eventually(
                lambda ends=ends: all(one.rounds >= end for one, end in ends.items()),
                "every key is asked for again",
            )
    finally:
        for one in load:
            one.stop.set()
        for one in load:
            one.join(30)

    assert [failure for one in load for failure in one.failures] == []
    for one in load:
        for key, versions in one.seen.items():
            assert versions == sorted(versions), f"key {key} went back: {versions}"
            assert (versions[0], versions[-1]) == ("v1", "v2")


def test_an_aborted_rollout_gives_everybody_production(gateway: gateway_kit.Running) -> None:
    """Its word has no weight, and the next answers are production's."""
    published(gateway, RolloutTraffic(id="m-r2", revision=2, canary="v2", production="v1"))

    answers = [gateway.infer("m", tensor(3))[1]["model_version"] for _ in range(20)]

    assert set(answers) == {"v1"}


def test_a_failing_canary_is_not_seen_over_http(gateway: gateway_kit.Running) -> None:
    """Production's answer, and the name of who failed."""
    status, answer = gateway.infer("failing", tensor(50, "INT64"))

    assert status == 200, answer
    assert (answer["model_version"], answer["outputs"][0]["data"]) == ("v1", [500.0])
    assert answer["parameters"]["model_role"] == "production"
    assert answer["parameters"]["fallback"] == "v2"


def test_a_failing_canary_is_not_seen_over_grpc(gateway: gateway_kit.Running) -> None:
    """The same, in the other protocol."""
    answer = over_grpc(gateway, "failing", 50, "<i8")

    assert answer.model_version == "v1"
    assert answer.parameters["model_role"].string_param == "production"
    assert answer.parameters["fallback"].string_param == "v2"
    assert np.frombuffer(answer.raw_output_contents[0], "<f4").tolist() == [500.0]


def test_a_canary_that_answers_is_left_alone(gateway: gateway_kit.Running) -> None:
    """The same model, asked for what its canary can do."""
    status, answer = gateway.infer("failing", tensor(5, "INT64"))

    assert (status, answer["model_version"]) == (200, "v2")
    assert "fallback" not in answer["parameters"]


def test_the_failure_is_recorded_beside_the_answer(gateway: gateway_kit.Running) -> None:
    """Two predictions: the canary's under its probability, production's as a fallback."""
    sent = {"id": "twice", "inputs": tensor(50, "INT64")}
    assert gateway.ask(f"{gateway.http}/v2/models/failing/infer", sent)[0] == 200

    url = f"{gateway.admin}/api/v1/predictions/recent?limit=1000"
    rows = [one for one in gateway.ask(url)[1]["predictions"] if one["request_id"] == "twice"]

    assert {(row["version"], row["reason"], row["probability"], row["code"]) for row in rows} == {
        ("v2", "random", 1.0, "INTERNAL"),
        ("v1", "fallback", 0.0, "OK"),
    }


def test_without_a_budget_the_caller_sees_the_canarys_error(gateway: gateway_kit.Running) -> None:
    """In both protocols."""
    assert gateway.infer("mean", tensor(50, "INT64"))[0] == 500
    with pytest.raises(grpc.RpcError) as refused:
        over_grpc(gateway, "mean", 50, "<i8")

    assert refused.value.code() is grpc.StatusCode.INTERNAL
    eventually(lambda: fell_back(gateway, "mean", "no_budget") == 2, "both are counted")


def test_a_server_that_never_answers_is_given_up(gateway: gateway_kit.Running) -> None:
    """Within the deadline: past it the gateway would answer 504."""
    status, answer = gateway.infer("hung", tensor(21))
    again = over_grpc(gateway, "hung", 21, "<f4")

    assert Silent.asked.is_set()
    assert (status, answer["model_version"], answer["outputs"][0]["data"]) == (200, "v1", [42.0])
    assert (again.model_version, again.parameters["fallback"].string_param) == ("v1", "v2")


def test_a_stopped_host_is_given_up(gateway: gateway_kit.Running) -> None:
    """Its process holds the connection and says nothing; when it goes on it answers again."""
    report = json.loads((gateway.data / "run" / "engine.json").read_bytes())
    [pid] = [one["pid"] for one in report["processes"] if one["serves"] == "stopped/v2"]
    assert gateway.infer("stopped", tensor(3))[1]["model_version"] == "v2"
    os.kill(pid, signal.SIGSTOP)
    try:
        status, answer = gateway.infer("stopped", tensor(3))
    finally:
        with contextlib.suppress(ProcessLookupError):  # the engine ends who is silent
            os.kill(pid, signal.SIGCONT)

    assert (status, answer["model_version"], answer["outputs"][0]["data"]) == (200, "v1", [6.0])
    assert answer["parameters"]["fallback"] == "v2"
