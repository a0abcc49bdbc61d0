"""What the scripts of the peers share: the model, and the protocol's JSON where a peer has none.

It imports nothing of Sluice, because it runs in the environments of others.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

__all__ = ["Options", "Trees", "options"]


class Options(NamedTuple):
    """What a script is told."""

    model: Path
    http: int
    grpc: int


def options() -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--http", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument("--grpc", type=int, required=True, help="port, if it speaks gRPC")
    found = parser.parse_args()
    return Options(found.model, found.http, found.grpc)


class Trees:
    """The model: one session, one thread, sequential, as Sluice runs it."""

    def __init__(self, path: str) -> None:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            path, settings, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def run(self, row: Any) -> Any:
        """Probabilities, float32 [n, 2], of a row, float32 [n, 30]."""
        [answer] = self._session.run(["probabilities"], {self._input: row})
        return answer

    def answer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """From the protocol's `inputs` to its answer; its `data` is a numpy array."""
        sent = inputs[0]
        answer = self.run(np.array(sent["data"], np.float32).reshape(sent["shape"]))
        output = {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": answer.shape,
            "data": answer.ravel(),
        }
        return {"model_name": "bench", "outputs": [output]}
