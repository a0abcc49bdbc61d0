"""The four clients of tritonclient behind one awaitable face, so that one test serves all."""

import importlib
import inspect
from typing import Any

import ml_dtypes
import numpy as np

FLAVOURS = ("http", "http.aio", "grpc", "grpc.aio")
SAMPLES: dict[str, np.ndarray] = {
    "BOOL": np.array([[True, False, True], [False, False, True]]),
    "INT8": np.array([[-128, 0, 127], [1, 2, 3]], np.int8),
    "INT16": np.array([[-32768, 0, 32767], [1, 2, 3]], np.int16),
    "INT32": np.array([[-(2**31), 0, 2**31 - 1], [1, 2, 3]], np.int32),
    "INT64": np.array([[-(2**63), 0, 2**63 - 1], [1, 2, 3]], np.int64),
    "UINT8": np.array([[0, 128, 255], [1, 2, 3]], np.uint8),
    "UINT16": np.array([[0, 1, 65535], [1, 2, 3]], np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1], [1, 2, 3]], np.uint32),
    "UINT64": np.array([[0, 1, 2**64 - 1], [1, 2, 3]], np.uint64),
    "FP16": np.array([[0.5, -2.0, 65504.0], [1, 2, 3]], np.float16),
    "BF16": np.array([[0.0, 1.5, -2.0], [256.0, 0.09375, 3.3e38]], ml_dtypes.bfloat16),
    "FP32": np.array([[0.1, -3.4e38, 1e-45], [1, 2, 3]], np.float32),
    "FP64": np.array([[0.1, -1.7e308, 5e-324], [1, 2, 3]], np.float64),
    "BYTES": np.array([[b"", b"a", "größe".encode()], [b"x" * 300, b"0", b" "]], np.object_),
}


class TritonClient:
    """One tritonclient; `call` awaits what needs awaiting."""

    def __init__(self, flavour: str, address: str, **options: Any) -> None:
        self.flavour = flavour
        self.is_http = flavour.startswith("http")
        self.module = importlib.import_module(f"tritonclient.{flavour}")
        self.raw = self.module.InferenceServerClient(address, **options)

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client and give its result."""
        result = getattr(self.raw, method)(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a management method; give plain Python over gRPC too."""
        if not self.is_http:
            kwargs["as_json"] = True
        return await self.call(method, *args, **kwargs)

    def input(self, name: str, values: np.ndarray, datatype: str, **options: Any) -> Any:
        """An input tensor; `binary_data` only means something over HTTP."""
        tensor = self.module.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, **(options if self.is_http else {}))
        return tensor

    def output(self, name: str, **options: Any) -> Any:
        """A requested output."""
        if not self.is_http:
            options.pop("binary_data", None)
        return self.module.InferRequestedOutput(name, **options)

    async def close(self) -> None:
        """Close its connections."""
        await self.call("close")
