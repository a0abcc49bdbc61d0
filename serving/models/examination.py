"""Decide whether the bytes of a model file may be served. Runs in a throw-away process.

Nothing here is safe against hostile bytes by itself: parsers and ONNX Runtime's graph
optimiser have had out-of-bounds accesses. `serving.models.checker` adds the walls.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message

from serving.errors import InvalidArtifact
from serving.models import probe
from serving.models.runtime import Model, plain_reason, raise_if_out_of_memory
from serving.types import Signature

__all__ = ["examine"]

_DOMAINS: Final = frozenset(
    ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training", "com.microsoft",
     "com.microsoft.nchwc", "com.ms.internal.nhwc", "org.pytorch.aten")
)  # fmt: skip
"""Operator sets that ONNX Runtime's CPU build brings kernels for."""

_ROWS: Final = 3
_MAX_METADATA: Final = 1 << 20
_MAX_TENSORS: Final = 1024


def _messages(root: Message) -> Iterator[Message]:
    """Walk every message in a message: nested graphs, attributes, functions, all of it."""
    stack = [root]
    while stack:
        message = stack.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            if isinstance(value, Message):
                stack.append(value)
            else:
                stack.extend(value)


def _parse(data: bytes) -> Any:
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, RecursionError) as error:
        raise InvalidArtifact("it is not a readable ONNX file: truncated or corrupt") from error
    if not model.HasField("graph") or not model.graph.output:
        raise InvalidArtifact("it holds no graph with outputs: not an ONNX model, or truncated")
    return model


def _refuse_by_content(model: Any) -> bool:
    """Refuse what must not even be loaded; return whether the model contains a Loop."""
    local = {(function.domain, function.name) for function in model.functions}
    loops = False
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto):
            if message.data_location == onnx.TensorProto.EXTERNAL or message.external_data:
                raise InvalidArtifact(
                    f"tensor '{message.name}' is external data, outside the model file: only "
                    "models in one file are served; save it again without external data"
                )
        elif isinstance(message, onnx.NodeProto):
            loops = loops or message.op_type == "Loop"
            known = message.domain in _DOMAINS or (message.domain, message.op_type) in local
            if not known:
                raise InvalidArtifact(
                    f"operator '{message.op_type}' of domain '{message.domain}' is a custom "
                    "operator; custom-operator libraries are not loaded"
                )
    return loops


def _first_run(model: Model) -> int | None:
    """Run on zeros; return the size of free inner dimensions that worked, None if none did.

    Raises InvalidArtifact if every size is known and the run fails all the same.
    """
    names = [tensor.name for tensor in model.outputs]
    guessed = probe.has_free_inner(model.inputs)
    for free in probe.FREE_SIZES if guessed else (1,):
        try:
            model.run(names, probe.zeros(model.inputs, 1, free), None)
        except Exception as error:
            raise_if_out_of_memory(error)
            if not guessed:
                raise InvalidArtifact(
                    f"it fails on an input of zeros: {plain_reason(error)}"
                ) from error
        else:
            return free
    return None


def _rows_are_independent(model: Model, free: int) -> bool:
    """Whether different rows answered together equal the same rows answered alone."""
    names = [tensor.name for tensor in model.outputs]
    # Whole numbers may be indices into a short table: try smaller ones before giving up.
    for top, seed in product((8, 2), range(2)):
        together = probe.random(model.inputs, _ROWS, free=free, top=top, seed=seed)
        try:
            answer = model.run(names, together, None)
            if any(part.shape[:1] != (_ROWS,) for part in answer):
                return False
            for row in range(_ROWS):
                feed = {
                    name: np.ascontiguousarray(data[row : row + 1])
                    for name, data in together.items()
                }
                alone = model.run(names, feed, None)
                if not probe.alike([p[row : row + 1] for p in answer], alone, model.outputs):
                    return False
        except Exception as error:  # noqa: BLE001 - these values do not suit it: try others
            raise_if_out_of_memory(error)
            continue
        if seed == 1:
            return True
    return False


def examine(data: bytes) -> Signature:
    """Read what a model takes and gives, after loading it and running it on made-up rows.

    Args:
        data: The whole file.

    Raises:
        InvalidArtifact: It must not be served; the message says why.
        MemoryError: It needs more memory than this process may have.
    """
    content = _parse(data)
    loops = _refuse_by_content(content)
    del content  # a second copy of all weights
    model = Model(data)
    if len(model.inputs) > _MAX_TENSORS or len(model.outputs) > _MAX_TENSORS:
        raise InvalidArtifact(f"it declares more than {_MAX_TENSORS} inputs or outputs")
    if sum(len(key) + len(value) for key, value in model.metadata.items()) > _MAX_METADATA:
        raise InvalidArtifact("its metadata is larger than 1 MiB")
    free = _first_run(model)
    tensors = [*model.inputs, *model.outputs]
    batchable = (
        free is not None
        and bool(model.inputs)
        and all(tensor.shape[:1] == (-1,) for tensor in tensors)
        and _rows_are_independent(model, free)
    )
    return Signature(model.inputs, model.outputs, batchable, model.metadata, loops)
