"""ONNX models for tests, built in memory: small, exact where possible, some of them bad."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ONNX_TYPE = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}

Shape = Sequence[int | str]


def tensor(name: str, datatype: str, shape: Shape) -> onnx.ValueInfoProto:
    """Declare an input or output; a string in `shape` is a free dimension."""
    return helper.make_tensor_value_info(name, ONNX_TYPE[datatype], list(shape))


def constant(name: str, value: object, dtype: str) -> onnx.TensorProto:
    """Make an initializer."""
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    metadata: dict[str, str] | None = None,
    domains: dict[str, int] | None = None,
) -> bytes:
    """Serialise a model of these parts."""
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(constants))
    opsets = [helper.make_opsetid("", 18)]
    opsets += [helper.make_opsetid(name, version) for name, version in (domains or {}).items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if metadata:
        helper.set_model_props(model, metadata)
    return model.SerializeToString()


def save(path: Path, model: bytes) -> Path:
    """Write a model and return its path."""
    path.write_bytes(model)
    return path


# --- models that behave ---------------------------------------------------------------------


def identity(datatype: str = "FP32", width: int = 3) -> bytes:
    """INPUT0 [n, width] to OUTPUT0, unchanged."""
    return build(
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])],
        [tensor("INPUT0", datatype, ["n", width])],
        [tensor("OUTPUT0", datatype, ["n", width])],
    )


def string_identity() -> bytes:
    """INPUT0 [n, 1] BYTES to OUTPUT0, unchanged."""
    return identity("BYTES", 1)


def flexible_identity(datatype: str = "FP32") -> bytes:
    """INPUT0 [n, m] to OUTPUT0: both dimensions are free."""
    return build(
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])],
        [tensor("INPUT0", datatype, ["n", "m"])],
        [tensor("OUTPUT0", datatype, ["n", "m"])],
    )


def doubler(width: int = 1) -> bytes:
    """X [n, width] FP32 to Y = X + X: exact in any batch."""
    return build(
        [helper.make_node("Add", ["X", "X"], ["Y"])],
        [tensor("X", "FP32", ["n", width])],
        [tensor("Y", "FP32", ["n", width])],
    )


def squarer(width: int = 3) -> bytes:
    """Takes and gives what `doubler` does, and answers otherwise."""
    tensors = [tensor(name, "FP32", ["n", width]) for name in ("X", "Y")]
    return build([helper.make_node("Mul", ["X", "X"], ["Y"])], tensors[:1], tensors[1:])


def simple() -> bytes:
    """INPUT0, INPUT1 [n, 16] INT32 to OUTPUT0 (sum) and OUTPUT1 (difference)."""
    return build(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [tensor(name, "INT32", ["n", 16]) for name in ("INPUT0", "INPUT1")],
        [tensor(name, "INT32", ["n", 16]) for name in ("OUTPUT0", "OUTPUT1")],
    )


def linear(features: int = 30, outputs: int = 2, seed: int = 0) -> bytes:
    """X [n, features] FP32 to Y [n, outputs]; metadata names the features f0, f1 and so on."""
    source = np.random.default_rng(seed)
    weights = source.standard_normal((features, outputs))
    names = "[" + ", ".join(f'"f{i}"' for i in range(features)) + "]"
    return build(
        [helper.make_node("Gemm", ["X", "W", "B"], ["Y"])],
        [tensor("X", "FP32", ["n", features])],
        [tensor("Y", "FP32", ["n", outputs])],
        [constant("W", weights, "<f4"), constant("B", np.arange(outputs), "<f4")],
        metadata={"feature_names": names},
    )


def mlp(features: int = 30, hidden: int = 64, seed: int = 0) -> bytes:
    """X [n, features] FP32 through one hidden layer to `probabilities` [n, 2] and `label` [n]."""
    source = np.random.default_rng(seed)
    return build(
        [
            helper.make_node("Gemm", ["X", "W1", "B1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "W2", "B2"], ["s"]),
            helper.make_node("Softmax", ["s"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ],
        [tensor("X", "FP32", ["n", features])],
        [tensor("probabilities", "FP32", ["n", 2]), tensor("label", "INT64", ["n"])],
        [
            constant("W1", source.standard_normal((features, hidden)) / 5, "<f4"),
            constant("B1", source.standard_normal(hidden), "<f4"),
            constant("W2", source.standard_normal((hidden, 2)) / 5, "<f4"),
            constant("B2", source.standard_normal(2), "<f4"),
        ],
    )


def fixed_batch() -> bytes:
    """X [1, 4] FP32 to Y = X + X: the first dimension is not free."""
    return build(
        [helper.make_node("Add", ["X", "X"], ["Y"])],
        [tensor("X", "FP32", [1, 4])],
        [tensor("Y", "FP32", [1, 4])],
    )


def batch_mean(width: int = 2) -> bytes:
    """X [n, width] FP32 to Y = X / (1 + mean over all rows): rows see each other."""
    return build(
        [
            helper.make_node("ReduceMean", ["X", "axes"], ["m"], keepdims=1),
            helper.make_node("Abs", ["m"], ["a"]),
            helper.make_node("Add", ["a", "one"], ["d"]),
            helper.make_node("Div", ["X", "d"], ["Y"]),
        ],
        [tensor("X", "FP32", ["n", width])],
        [tensor("Y", "FP32", ["n", width])],
        [constant("axes", [0], "<i8"), constant("one", 1.0, "<f4")],
    )


def picky(entries: int = 10) -> bytes:
    """X [n, 1] INT64 to Y [n, 1] FP32, 10 × X, from a table: fails beyond its last entry."""
    return build(
        [
            helper.make_node("Squeeze", ["X", "axes"], ["i"]),
            helper.make_node("Gather", ["table", "i"], ["Y"]),
        ],
        [tensor("X", "INT64", ["n", 1])],
        [tensor("Y", "FP32", ["n", 1])],
        [
            constant("axes", [1], "<i8"),
            constant("table", np.arange(entries).reshape(-1, 1) * 10, "<f4"),
        ],
    )


def always_failing() -> bytes:
    """X [n, 4] FP32, reshaped to 3 columns: loads, and fails on any single row."""
    return build(
        [helper.make_node("Reshape", ["X", "shape"], ["Y"])],
        [tensor("X", "FP32", ["n", 4])],
        [tensor("Y", "FP32", ["n", 3])],
        [constant("shape", [-1, 3], "<i8")],
    )


def _loop(trips: str, constants: Sequence[onnx.TensorProto], body: onnx.GraphProto) -> bytes:
    return build(
        [helper.make_node("Loop", [trips, "go", "X"], ["Y"], body=body)],
        [tensor("X", "FP32", ["n", 1])],
        [tensor("Y", "FP32", ["n", 1])],
        [constant("go", True, "?"), *constants],
    )


def _step() -> onnx.GraphProto:
    return helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Identity", ["x_in"], ["x_out"]),
        ],
        "step",
        [tensor("i", "INT64", []), tensor("go_in", "BOOL", []), tensor("x_in", "FP32", ["n", 1])],
        [tensor("go_out", "BOOL", []), tensor("x_out", "FP32", ["n", 1])],
    )


def slow(trips: int = 2_000) -> bytes:
    """X [n, 1] FP32 to Y = X, the long way round: about 1 µs a trip."""
    return _loop("trips", [constant("trips", trips, "<i8")], _step())


def endless() -> bytes:
    """X [n, 1] FP32 to Y = X after 2⁶² trips round a loop."""
    return slow(2**62)


def patience() -> bytes:
    """X [n, 1] INT64 to Y = X, after as many trips round a loop as the largest X says."""
    return build(
        [
            helper.make_node("ReduceMax", ["X"], ["trips"], keepdims=0),
            helper.make_node("Cast", ["X"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Loop", ["trips", "go", "f"], ["g"], body=_step()),
            helper.make_node("Cast", ["g"], ["Y"], to=TensorProto.INT64),
        ],
        [tensor("X", "INT64", ["n", 1])],
        [tensor("Y", "INT64", ["n", 1])],
        [constant("go", True, "?")],
    )


# --- models that must be refused ------------------------------------------------------------


def zipmap() -> bytes:
    """A classifier whose output is a sequence of maps, as skl2onnx exports by default."""
    pair = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    labels = {"classlabels_int64s": [0, 1]}
    return build(
        [helper.make_node("ZipMap", ["X"], ["Y"], domain="ai.onnx.ml", **labels)],
        [tensor("X", "FP32", ["n", 2])],
        [helper.make_value_info("Y", helper.make_sequence_type_proto(pair))],
        domains={"ai.onnx.ml": 3},
    )


def custom_operator() -> bytes:
    """An operator nobody has a kernel for."""
    return build(
        [helper.make_node("Frobnicate", ["X"], ["Y"], domain="com.example")],
        [tensor("X", "FP32", ["n", 1])],
        [tensor("Y", "FP32", ["n", 1])],
        domains={"com.example": 1},
    )


def greedy(elements: int = 1 << 36) -> bytes:
    """X [n, 1] FP32 to Y = X + the sum of that many zeros, made at run time."""
    return build(
        [
            helper.make_node("ConstantOfShape", ["size"], ["z"]),
            helper.make_node("ReduceSum", ["z"], ["sum"], keepdims=0),
            helper.make_node("Add", ["X", "sum"], ["Y"]),
        ],
        [tensor("X", "FP32", ["n", 1])],
        [tensor("Y", "FP32", ["n", 1])],
        [constant("size", [elements], "<i8")],
    )


def external(location: str, *, nested: bool = False) -> bytes:
    """A model whose weight lies in another file; `nested` hides it in a Loop's body."""
    weight = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    if nested:
        body = _step()
        body.initializer.append(weight)
        return _loop("trips", [constant("trips", 1, "<i8")], body)
    return build(
        [helper.make_node("Add", ["X", "outside"], ["Y"])],
        [tensor("X", "FP32", ["n", 1])],
        [tensor("Y", "FP32", ["n", 1])],
        [weight],
    )


# --- models that pass the check, and crash their process ------------------------------------


def _lowest_over(divisor: Sequence[onnx.NodeProto], *constants: onnx.TensorProto) -> bytes:
    """X [n, 3] FP32 to Y = X, plus 0 × (-2⁶³ / d): SIGFPE on x86-64 where d is -1.

    The quotient, 2⁶³, does not fit; ONNX Runtime 1.32 looks out for zero only.
    """
    return build(
        [
            *divisor,
            helper.make_node("Div", ["lowest", "d"], ["q"]),
            helper.make_node("Mul", ["q", "zero"], ["z"]),
            helper.make_node("Cast", ["z"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["X", "f"], ["Y"]),
        ],
        [tensor("X", "FP32", ["n", 3])],
        [tensor("Y", "FP32", ["n", 3])],
        [constant("lowest", -(2**63), "<i8"), constant("zero", 0, "<i8"), *constants],
    )


def trap(value: int = 7) -> bytes:
    """X [n, 3] FP32 to Y = X; any `value` in X crashes the process."""
    return _lowest_over(
        [
            helper.make_node("Cast", ["X"], ["i"], to=TensorProto.INT64),
            helper.make_node("Sub", ["i", "next"], ["d"]),
        ],
        constant("next", value + 1, "<i8"),
    )


def crowd_trap(rows: int = 64) -> bytes:
    """X [n, 3] FP32 to Y = X; so many rows at once crash the process, as in warming up."""
    return _lowest_over(
        [
            helper.make_node("Shape", ["X"], ["n"], end=1),
            helper.make_node("Sub", ["n", "next"], ["d"]),
        ],
        constant("next", rows + 1, "<i8"),
    )
