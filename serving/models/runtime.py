"""The one place that calls ONNX Runtime's Python interface.

Everything that depends on its version is here: session options, type names, and the faster
private `run`, which skips about 3 µs of validation in Python that the checks at load and in
the decoder have already done. Where a release has no such method the public one is used.
"""

import ctypes
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from serving.errors import InvalidArtifact
from serving.types import TensorMetadata

__all__ = ["DATATYPE_OF", "Model", "Stop", "plain_reason", "quick_run", "raise_if_out_of_memory"]

DATATYPE_OF: Final = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""ONNX Runtime's type names, and the Open Inference Protocol's."""

_BFLOAT16: Final = 16  # onnx.TensorProto.BFLOAT16; not imported, `onnx` costs a worker 20 MB
_SILENT: Final = 4  # fatal only: we log failures ourselves, with the model's name
_PREFIX: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NO_MEMORY: Final = re.compile("allocate memory|bad_alloc|bad allocation")
_PATHS: Final = re.compile(r"\S*/\S+(:\d+)?")


class Stop(Protocol):
    """A switch that ends a run from another thread."""

    terminate: bool


def plain_reason(error: Exception, limit: int = 300) -> str:
    """Say what ONNX Runtime said, in one line, without its prefix and source paths."""
    text = _PATHS.sub("…", _PREFIX.sub("", str(error)))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]


def raise_if_out_of_memory(error: Exception) -> None:
    """Raise MemoryError if that is what ONNX Runtime means by this error."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        raise MemoryError from error


def _options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _SILENT
    if threads > 1:
        # Threads that spin after a run burn whole cores for a second per request; not
        # spinning left latency unchanged (performance reference, section 5).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _tensor(node: Any, what: str) -> TensorMetadata:
    datatype = DATATYPE_OF.get(node.type)
    if datatype is None:
        advice = ""
        if "map(" in node.type:
            advice = "; export the classifier without ZipMap (skl2onnx: options={'zipmap': False})"
        elif node.type.startswith(("seq(", "optional(")):
            advice = "; only plain tensors can be served"
        raise InvalidArtifact(f"{what} '{node.name}' is {node.type}, not a tensor{advice}")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorMetadata(node.name, datatype, shape)


def quick_run(session: Any) -> Callable[..., list[NDArray[Any]]]:
    """Find the quickest `run` an `InferenceSession` has.

    The private one also outlives its wrapper, which would keep the file's bytes in memory
    for a fallback to other providers.
    """
    return getattr(getattr(session, "_sess", None), "run", None) or session.run  # type: ignore[no-any-return]


class Model:
    """A loaded model: its declared tensors and a way to run it.

    Loads on construction, holding the GIL; raises InvalidArtifact if ONNX Runtime refuses.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        try:
            session = ort.InferenceSession(
                model, _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise_if_out_of_memory(error)
            raise InvalidArtifact(f"ONNX Runtime cannot load it: {plain_reason(error)}") from error
        self.inputs = [_tensor(node, "input") for node in session.get_inputs()]
        self.outputs = [_tensor(node, "output") for node in session.get_outputs()]
        self.metadata: dict[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        inputs = {tensor.name for tensor in self.inputs if tensor.datatype == "BF16"}
        outputs = {tensor.name for tensor in self.outputs if tensor.datatype == "BF16"}
        self._bfloat16 = inputs
        self.run: Callable[[Sequence[str], dict[str, NDArray[Any]], Any], list[NDArray[Any]]]
        """Run once: output names, feed, and None or a `stop_switch()`.

        BYTES are object arrays of `str` here, BF16 `uint16` bit patterns. Raises whatever
        ONNX Runtime raises.
        """
        if inputs or outputs:
            self._session = session
            self.run = self._run_values
        else:
            self.run = quick_run(session)

    @staticmethod
    def stop_switch() -> Stop:
        """Make a switch for one run; setting `terminate` ends it before the next operator."""
        switch: Stop = ort.RunOptions()
        return switch

    def _run_values(
        self, names: Sequence[str], feed: dict[str, NDArray[Any]], stop: Any
    ) -> list[NDArray[Any]]:
        """Run a model with BF16 tensors, which numpy cannot hold: about 100 µs dearer."""
        make = ort.OrtValue
        values = {
            name: make.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(data), _BFLOAT16)
            if name in self._bfloat16
            else make.ortvalue_from_numpy(data)
            for name, data in feed.items()
        }
        outputs = self._session.run_with_ort_values(list(names), values, stop)
        return [
            _bits(value) if value.element_type() == _BFLOAT16 else value.numpy()
            for value in outputs
        ]


def _bits(value: Any) -> NDArray[Any]:
    """Copy a BF16 value's bits out of ONNX Runtime."""
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    raw = ctypes.string_at(value.data_ptr(), 2 * count)
    return np.frombuffer(raw, np.dtype("<u2")).reshape(shape)
