"""A model for MLServer: X FP32 `[n, 3]` to Y, twice as much; negative numbers are refused."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Double(MLModel):
    """MLServer's way of writing a model."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        numbers = NumpyCodec.decode_input(payload.inputs[0])
        if (numbers < 0).any():
            raise InferenceError("no negative numbers")
        output = NumpyCodec.encode_output("Y", numbers * 2)
        return InferenceResponse(model_name=self.name, outputs=[output])
