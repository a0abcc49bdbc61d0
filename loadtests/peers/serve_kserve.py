"""KServe's model server with a custom model, one worker, uvloop, no latency log.

KServe 0.21 binds both its listeners to every interface, and that is written into its source; they
are put on loopback here.
"""

import sys
from typing import Any

from open_inference import Trees, options

told = options()
sys.argv[1:] = []  # KServe reads the command line when it is imported

import grpc.aio  # noqa: E402
import kserve.protocol.rest.server as rest  # noqa: E402
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer  # noqa: E402


class Predictor(Model):  # type: ignore[misc]
    """The model behind KServe's data plane."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self._trees = Trees(path)
        self.ready = True

    async def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        """One request; KServe has read it, and writes what comes back."""
        del headers, response_headers
        answer = self._trees.run(payload.inputs[0].as_numpy().astype("float32", copy=False))
        output = InferOutput("probabilities", list(answer.shape), "FP32")
        output.set_data_from_numpy(answer, binary_data=payload.from_grpc)
        return InferResponse(payload.id or "", self.name, [output])


def stay_on_loopback() -> None:
    """See above."""
    config = rest.uvicorn.Config
    rest.uvicorn.Config = lambda app, **given: config(app, **{**given, "host": "127.0.0.1"})
    server = grpc.aio.server

    def on_loopback(*arguments: Any, **given: Any) -> Any:
        made = server(*arguments, **given)
        bind = made.add_insecure_port
        made.add_insecure_port = lambda address: bind(address.replace("[::]", "127.0.0.1"))
        return made

    grpc.aio.server = on_loopback


if __name__ == "__main__":
    stay_on_loopback()
    ModelServer(
        http_port=told.http, grpc_port=told.grpc, workers=1, enable_latency_logging=False
    ).start([Predictor("bench", str(told.model))])
