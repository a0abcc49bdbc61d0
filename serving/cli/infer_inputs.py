"""From `--entity person_id=42` to tensors, by what the model's metadata says; no I/O."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
import orjson

from serving.cli.output import CommandError
from serving.errors import InvalidRequest
from serving.protocol import tensors
from serving.types import NUMPY_OF, Tensor, TensorMetadata

__all__ = ["LIMITS", "build", "pairs"]

LIMITS: Final = tensors.TensorLimits(max_elements=1 << 24, max_inputs=1024, max_json_depth=64)
"""Our own carelessness, not a policy: the gateway has its limits."""

_TRUE_FALSE: Final = {"true": True, "1": True, "false": False, "0": False}


def pairs(options: Sequence[str], option: str) -> dict[str, list[str]]:
    """Read `NAME=VALUE` options; a name given again adds a row. Raises CommandError."""
    found: dict[str, list[str]] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CommandError(f"{option} {text}: expected NAME=VALUE, such as person_id=42")
        found.setdefault(name, []).append(value)
    return found


def build(
    declared: Sequence[TensorMetadata],
    rows: Mapping[str, Sequence[str]],
    whole: Mapping[str, Sequence[str]],
) -> list[Tensor]:
    """Make the request's tensors.

    Args:
        declared: the model's inputs.
        rows: single values by name, one per row.
        whole: whole tensors as JSON arrays by name.

    Raises:
        CommandError: an unknown name, a value that does not fit, or nothing at all.
    """
    known = {tensor.name: tensor for tensor in declared}
    if not rows and not whole:
        raise CommandError(
            "there is nothing to ask", hint=f"the model takes {', '.join(known)}; see --help"
        )
    made = [_column(_declared(known, name), values) for name, values in rows.items()]
    for name, texts in whole.items():
        if len(texts) > 1 or name in rows:
            raise CommandError(f"`{name}` is given twice")
        made.append(_array(_declared(known, name), texts[0]))
    return made


def _declared(known: Mapping[str, TensorMetadata], name: str) -> TensorMetadata:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"it takes {', '.join(known)}"
    raise CommandError(f"the model has no input `{name}`", hint=hint)


def _column(tensor: TensorMetadata, values: Sequence[str]) -> Tensor:
    """One value a row: shape [n], or [n, 1] where the model wants two dimensions."""
    inner = tensor.shape[1:]
    if any(size not in (-1, 1) for size in inner):
        raise CommandError(
            f"`{tensor.name}` takes {'×'.join(map(str, inner))} values a row, not one",
            hint=f"give it whole: --input {tensor.name}='[[…]]'",
        )
    parsed = [_value(tensor, text) for text in values]
    shape = (len(parsed), *(1 for _ in inner))
    return Tensor(tensor.name, tensor.datatype, _as_array(tensor, parsed).reshape(shape))


def _value(tensor: TensorMetadata, text: str) -> Any:
    try:
        if tensor.datatype == "BYTES":
            return text.encode("utf-8", "surrogateescape")
        if tensor.datatype == "BOOL":
            return _TRUE_FALSE[text.lower()]
        if tensor.datatype.startswith(("INT", "UINT")):
            number = int(text)
            limits = np.iinfo(NUMPY_OF[tensor.datatype])
            if not limits.min <= number <= limits.max:
                raise CommandError(f"`{tensor.name}`: {text} is out of {tensor.datatype}'s range")
            return number
        return float(text)
    except (ValueError, KeyError) as error:
        raise CommandError(f"`{tensor.name}`: `{text}` is no {tensor.datatype}") from error


def _array(tensor: TensorMetadata, text: str) -> Tensor:
    try:
        data = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise CommandError(f"--input {tensor.name}: not JSON: {error}") from error
    shape = []
    level = data
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    if not shape:
        raise CommandError(f"--input {tensor.name}: expected a JSON array, such as [[1, 2]]")
    try:
        if tensor.datatype in ("FP16", "BF16"):
            # JSON cannot carry them on the wire; written here as numbers, they travel raw.
            exact = tensors.from_json(tensor.name, "FP32", shape, data, LIMITS)
            return Tensor(tensor.name, tensor.datatype, _as_array(tensor, exact.data))
        return tensors.from_json(tensor.name, tensor.datatype, shape, data, LIMITS)
    except InvalidRequest as error:
        raise CommandError(error.message) from error


def _as_array(tensor: TensorMetadata, values: Any) -> Any:
    if tensor.datatype == "BYTES":
        array = np.empty(len(values), np.object_)
        array[:] = values
        return array
    if tensor.datatype == "BF16":
        # The high half of an FP32, rounded to nearest by adding half of what is cut off.
        bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.asarray(values, NUMPY_OF[tensor.datatype])
