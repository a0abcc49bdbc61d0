"""Make the two models of this directory: the same function, one four times as slow.

    python loadtests/scenarios/slow/make_models.py

X [1, 1] FP32 comes out as Y, after so many turns of a loop; a turn takes about 0.6 µs. One row a
run, so that what the model can do does not grow with what is asked of it.
"""

import hashlib
from pathlib import Path

from onnx import ModelProto, TensorProto, helper

FOLDER = Path(__file__).parent / "artifacts"
TURNS = {"v1": 6_000, "v2": 24_000}


def looping(turns: int) -> ModelProto:
    """The model with so many turns."""
    value = helper.make_tensor_value_info
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Identity", ["x_in"], ["x_out"]),
        ],
        "step",
        [
            value("i", TensorProto.INT64, []),
            value("go_in", TensorProto.BOOL, []),
            value("x_in", TensorProto.FLOAT, [1, 1]),
        ],
        [value("go_out", TensorProto.BOOL, []), value("x_out", TensorProto.FLOAT, [1, 1])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["turns", "go", "X"], ["Y"], body=step)],
        "looping",
        [value("X", TensorProto.FLOAT, [1, 1])],
        [value("Y", TensorProto.FLOAT, [1, 1])],
        [
            helper.make_tensor("turns", TensorProto.INT64, [], [turns]),
            helper.make_tensor("go", TensorProto.BOOL, [], [True]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


if __name__ == "__main__":
    for version, turns in TURNS.items():
        content = looping(turns).SerializeToString()
        (FOLDER / f"slow-{version}.onnx").write_bytes(content)
        print(version, hashlib.sha256(content).hexdigest())
