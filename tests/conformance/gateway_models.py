"""The models that clients are tested with, as ONNX files behind a whole gateway."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import gateway_kit
import onnx_models
from onnx import TensorProto, helper

_DATATYPES = "BOOL INT8 INT16 INT32 INT64 UINT8 UINT16 UINT32 UINT64 FP16 BF16 FP32 FP64 BYTES"
IDENTITY = {datatype: f"identity_{datatype.lower()}" for datatype in _DATATYPES.split()}
"""The identity model of each datatype."""


def identity(datatype: str) -> bytes:
    """INPUT0 `[n, m]` to OUTPUT0, both dimensions free."""
    shape = ["n", "m"]
    return onnx_models.build(
        [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])],
        [onnx_models.tensor("INPUT0", datatype, shape)],
        [onnx_models.tensor("OUTPUT0", datatype, shape)],
    )


def simple() -> bytes:
    """INPUT0, INPUT1 INT32 `[n, 16]` to their sum OUTPUT0 and difference OUTPUT1."""
    shape = ["n", 16]
    return onnx_models.build(
        [
            helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
            helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
        ],
        [onnx_models.tensor(name, "INT32", shape) for name in ("INPUT0", "INPUT1")],
        [onnx_models.tensor(name, "INT32", shape) for name in ("OUTPUT0", "OUTPUT1")],
    )


def waiting() -> bytes:
    """INPUT0 FP32 `[n, m]` to OUTPUT0, after 2⁶² trips round a loop if any of it is below -1e30.

    Only then: the check of a model file must come to an end.
    """
    shape = ["n", "m"]
    declared = [onnx_models.tensor(name, "FP32", shape) for name in ("x_in", "x_out")]
    flags = [onnx_models.tensor(name, "BOOL", []) for name in ("go_in", "go_out")]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Identity", ["x_in"], ["x_out"]),
        ],
        "step",
        [onnx_models.tensor("i", "INT64", []), flags[0], declared[0]],
        [flags[1], declared[1]],
    )
    return onnx_models.build(
        [
            helper.make_node("Less", ["INPUT0", "low"], ["below"]),
            helper.make_node("Cast", ["below"], ["counted"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", ["counted"], ["any"], keepdims=0),
            helper.make_node("Mul", ["any", "endless"], ["trips"]),
            helper.make_node("Loop", ["trips", "go", "INPUT0"], ["OUTPUT0"], body=body),
        ],
        [onnx_models.tensor("INPUT0", "FP32", shape)],
        [onnx_models.tensor("OUTPUT0", "FP32", shape)],
        [
            onnx_models.constant("low", -1e30, "<f4"),
            onnx_models.constant("endless", 2**62, "<i8"),
            onnx_models.constant("go", True, "?"),
        ],
    )


def write_models(directory: Path) -> None:
    """`identity_…` for every datatype, `simple`, `waiting`."""
    gateway_kit.write_model(directory, "simple", {"1": simple()}, {})
    gateway_kit.write_model(directory, "waiting", {"1": waiting()}, {})
    for datatype, model in IDENTITY.items():
        gateway_kit.write_model(directory, model, {"1": identity(datatype)}, {})


@contextlib.contextmanager
def running_gateway(folder: Path) -> Iterator[gateway_kit.Running]:
    """`sluice up` on one worker, with the local engine."""
    directory = folder / "clients"
    gateway_kit.write_gateway(directory, engine={"kind": "local", "workers": 1})
    write_models(directory)
    with gateway_kit.running(directory) as running:
        yield running
