"""The models that clients are tested with, as ONNX files behind a whole gateway."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import gateway_kit
import onnx_models
from onnx import helper


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


@contextlib.contextmanager
def running_gateway(folder: Path, identities: dict[str, str]) -> Iterator[gateway_kit.Running]:
    """`sluice up` on one worker, serving `identities` (model by datatype) and `simple`."""
    directory = folder / "clients"
    gateway_kit.write_gateway(directory, engine={"kind": "local", "workers": 1})
    gateway_kit.write_model(directory, "simple", {"1": simple()}, {})
    for datatype, model in identities.items():
        gateway_kit.write_model(directory, model, {"1": identity(datatype)}, {})
    with gateway_kit.running(directory) as running:
        yield running
