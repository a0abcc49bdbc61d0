"""What a model's clients are told of inputs that do not fit it. Pure."""

from typing import Any

from serving.errors import InvalidRequest
from serving.types import Tensor, TensorMetadata

__all__ = ["check_column", "check_whole", "listed", "missing_input", "shape_words"]


def check_column(tensor: Tensor, datatype: str) -> None:
    """Check a key or feature: one value a row. Raises InvalidRequest."""
    if tensor.datatype != datatype:
        raise InvalidRequest(
            f"input '{tensor.name}' has datatype {tensor.datatype}, but it is declared {datatype}"
        )
    shape = tensor.data.shape
    if len(shape) != 1 and shape[1:] != (1,):
        raise InvalidRequest(
            f"input '{tensor.name}' has shape {shape_words(shape)}, but it takes one value a row: "
            "[n] or [n, 1]"
        )


def check_whole(tensor: Tensor, spec: TensorMetadata, model: str) -> None:
    """Check an input that is sent as the model takes it. Raises InvalidRequest."""
    if tensor.datatype != spec.datatype:
        raise InvalidRequest(
            f"input '{tensor.name}' has datatype {tensor.datatype}, "
            f"but model '{model}' takes {spec.datatype}"
        )
    shape = tensor.data.shape
    if len(shape) != len(spec.shape) or any(
        expected not in (-1, given) for expected, given in zip(spec.shape, shape, strict=True)
    ):
        raise InvalidRequest(
            f"input '{tensor.name}' has shape {shape_words(shape)}, "
            f"but model '{model}' takes {shape_words(spec.shape)}"
        )


def missing_input(spec: TensorMetadata, model: str) -> InvalidRequest:
    """What to raise for an input that was not sent and cannot be assembled."""
    return InvalidRequest(
        f"missing input '{spec.name}': model '{model}' takes it as "
        f"{spec.datatype} of shape {shape_words(spec.shape)}"
    )


def shape_words(shape: tuple[int, ...]) -> str:
    """A shape for people."""
    return "[" + ", ".join(str(dimension) for dimension in shape) + "]"


def listed(names: Any) -> str:
    """Names for people, the first few."""
    names = sorted(names)
    shown = ", ".join(f"'{name}'" for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
