"""MLServer with a custom runtime, in its one process (no pool of workers) and without debug logs.

A pool would only add a hop between processes to a model of some microseconds.
"""

import asyncio

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse
from open_inference import Options, Trees, options


class Runtime(MLModel):
    """The model behind MLServer's data plane."""

    async def load(self) -> bool:
        """Open the session."""
        self._trees = Trees(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One request; MLServer has read it, and writes what comes back."""
        row = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("probabilities", self._trees.run(row))
        return InferenceResponse(model_name=self.name, outputs=[output])


async def serve(told: Options) -> None:
    """Until SIGTERM."""
    settings = Settings(
        host="127.0.0.1",
        http_port=told.http,
        grpc_port=told.grpc,
        metrics_endpoint=None,
        parallel_workers=0,
        debug=False,
    )
    model = ModelSettings(
        name="bench", implementation=Runtime, parameters=ModelParameters(uri=str(told.model))
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(serve(options()))
