"""The servers that overload.py loads, and the model that they all serve.

The model takes one row a run, and long enough for it that the model and not the generator is what
is short on two cores. That a run takes one row is on purpose: a model that takes batches can do
more the more is asked of it, and then neither "capacity" nor "four times of it" is a number.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import onnx
import orjson
from bench_gateway import running
from bench_ray_serve import answering, ray_serve
from bench_workloads import Workload, gateway_directory, open_session
from onnx import TensorProto, helper
from ray_serve_peer import free_ports

__all__ = ["SERVERS", "Running", "slow_workload"]

COLUMNS: Final = 30
WIDTH: Final = 64
_TRIAL_LAYERS: Final = 200
_TRIALS: Final = 50


class Running(NamedTuple):
    """A server that answers: `host:port`, the pid at the root of its tree, its name."""

    name: str
    address: str
    pid: int


def _layers(count: int) -> bytes:
    """X [1, 30] FP32 through so many layers of 64, which share weights, to probabilities [1, 2]."""
    random = np.random.default_rng(64)

    def weights(name: str, rows: int, columns: int) -> onnx.TensorProto:
        values = random.normal(0, 1 / np.sqrt(rows), (rows, columns)).astype(np.float32)
        return helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.ravel())

    nodes = [helper.make_node("MatMul", ["input", "first"], ["h0"])]
    for number in range(count):
        nodes.append(helper.make_node("MatMul", [f"h{number}", "middle"], [f"m{number}"]))
        nodes.append(helper.make_node("Tanh", [f"m{number}"], [f"h{number + 1}"]))
    nodes.append(helper.make_node("MatMul", [f"h{count}", "last"], ["scores"]))
    nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"]))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, COLUMNS])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 2])],
        [
            weights("first", COLUMNS, WIDTH),
            weights("middle", WIDTH, WIDTH),
            weights("last", WIDTH, 2),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def _run_seconds(artifact: Path) -> float:
    """What a run takes when nothing else does: the shortest of many."""
    session = open_session(artifact)
    row = np.random.default_rng(30).normal(size=(1, COLUMNS)).astype(np.float32)
    taken = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        session.run(["probabilities"], {"input": row})
        taken.append(time.perf_counter() - start)
    return min(taken)


def slow_workload(folder: Path, seconds: float) -> Workload:
    """A model of which a run takes about so many seconds on this machine, and sixteen requests."""
    artifact = folder / "layers.onnx"
    artifact.write_bytes(_layers(_TRIAL_LAYERS))
    layers = max(1, round(_TRIAL_LAYERS * seconds / _run_seconds(artifact)))
    artifact.write_bytes(_layers(layers))
    session = open_session(artifact)
    rows = np.random.default_rng(30).normal(size=(16, 1, COLUMNS)).round(4).astype(np.float32)
    bodies = [
        orjson.dumps(
            {
                "inputs": [
                    {"name": "input", "datatype": "FP32", "shape": row.shape, "data": row.ravel()}
                ]
            },
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        for row in rows
    ]
    answers = [session.run(["probabilities"], {"input": row})[0][0].tolist() for row in rows]
    return Workload("layers", "bench", artifact, bodies, [], answers)


@contextmanager
def _sluice(workload: Workload, folder: Path) -> Iterator[Running]:
    """`sluice up` with one worker: whole pipeline, metrics, records in memory."""
    directory = gateway_directory(workload, folder / "gateway")
    with running(directory, folder / "data", model=workload.model, body=workload.http[0]) as one:
        yield Running("sluice", one.http, one.pid)


@contextmanager
def _uvicorn(workload: Workload, folder: Path) -> Iterator[Running]:
    """A bare ASGI application."""
    [port] = free_ports(1)
    script = Path(__file__).with_name("uvicorn_peer.py")
    command = [sys.executable, script, "--port", port, "--model", workload.artifact]
    where = f"127.0.0.1:{port}"
    with answering(command, folder / "uvicorn.log", lambda: where, workload) as (pid, _):
        yield Running("uvicorn", where, pid)


def _ray(kind: str) -> Callable[[Workload, Path], Any]:
    @contextmanager
    def start(workload: Workload, folder: Path) -> Iterator[Running]:
        with ray_serve(kind, workload, folder) as one:
            yield Running(f"ray-{kind}", one.address, one.pid)

    return start


SERVERS: Final[dict[str, Callable[[Workload, Path], Any]]] = {
    "sluice": _sluice,
    "uvicorn": _uvicorn,
    "ray-best": _ray("best"),
    "ray-default": _ray("default"),
}
"""By name: starts one, and ends it when the `with` block does."""
