"""The servers that overload.py loads, and the model that they all serve.

The model takes one row a run, and long enough for it that the model and not the generator is what
is short on two cores. That a run takes one row is on purpose: a model that takes batches can do
more the more is asked of it, and then neither "capacity" nor "four times of it" is a number.
"""

import time
from pathlib import Path
from typing import Final

import compare_servers
import numpy as np
import onnx
import orjson
from bench_workloads import Workload, open_session
from onnx import TensorProto, helper

__all__ = ["SERVERS", "slow_workload"]

COLUMNS: Final = 30
WIDTH: Final = 64
_TRIAL_LAYERS: Final = 200
_TRIALS: Final = 50


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


_LAUNCHES: Final = {one.name: one.start for one in compare_servers.SERVERS}
SERVERS: Final = {
    name: _LAUNCHES[name] for name in ("sluice", "uvicorn", "ray-best", "ray-default")
}
"""By name: starts one, and ends it when the `with` block does."""
