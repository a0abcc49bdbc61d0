"""Reading an answer with success: what it says about itself, and whether it answers the question.

Status 200 alone is no success. An answer of another model, without outputs or with other rows than
were asked is `wrong`, and so are numbers outside of what the scenario expects. What each request
expects is made once; an answer then costs a few comparisons. Pure.

Formats: Open Inference Protocol V2, its binary tensor data extension, its protobuf messages.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from serving.types import NUMPY_OF

__all__ = ["Expected", "Facts", "Limits", "Wrong", "read_grpc", "read_json"]


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What an answer with success says about itself."""

    version: str = ""
    """`model:version`."""

    role: str = ""
    features: str = ""
    """Its `feature_status`."""


class Wrong(msgspec.Struct, frozen=True):
    """Why an answer is none: `unreadable` or `wrong`, and words for people."""

    status: str
    words: str


class Limits(msgspec.Struct, frozen=True):
    """From where to where each number of an output may be; None: any."""

    at_least: float | None = None
    at_most: float | None = None


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers of one kind must be."""

    model: str
    version: str = ""
    """Empty: any."""

    rows: bool = True
    """Whether each output has the request's rows first in its shape."""

    outputs: Mapping[str, Limits] = {}
    """Outputs that must be there."""


def read_json(
    body: bytes, json_length: int | None, expected: Expected, rows: int | None
) -> Facts | Wrong:
    """Read a body of HTTP, of which `json_length` bytes are JSON; None: all of it.

    `rows` are those of the request; None where they are not known.
    """
    try:
        answer = orjson.loads(body if json_length is None else memoryview(body)[:json_length])
        parameters = answer.get("parameters") or {}
        model, version = answer["model_name"], answer.get("model_version", "")
        facts = Facts(
            f"{model}:{version}",
            str(parameters.get("model_role", "")),
            str(parameters.get("feature_status", "")),
        )
        outputs = answer.get("outputs") or []
        shapes = [(one["name"], one["shape"]) for one in outputs]
        problem = _answered(expected, model, version) or _shaped(expected, shapes, rows)
        if problem is None and expected.outputs:
            tail = memoryview(body)[json_length or len(body) :]
            problem = _within(expected.outputs, _arrays(outputs, tail))
    except (ValueError, KeyError, TypeError, AttributeError):
        said = body[:100].decode(errors="replace")
        return Wrong("unreadable", f"200, but no answer of the protocol: {said}")
    return facts if problem is None else Wrong("wrong", problem)


def read_grpc(answer: Any, expected: Expected, rows: int | None) -> Facts | Wrong:
    """Read a `ModelInferResponse`; see `read_json`."""
    model, version = answer.model_name, answer.model_version
    parameters = answer.parameters
    # Asking a protobuf map for a missing key would make it.
    role = parameters["model_role"].string_param if "model_role" in parameters else ""
    features = parameters["feature_status"].string_param if "feature_status" in parameters else ""
    shapes = [(one.name, one.shape) for one in answer.outputs]
    problem = _answered(expected, model, version) or _shaped(expected, shapes, rows)
    if problem is None and expected.outputs:
        try:
            problem = _within(expected.outputs, _messages(answer))
        except (ValueError, KeyError) as error:
            return Wrong("unreadable", f"an output that cannot be read: {error}")
    return (
        Facts(f"{model}:{version}", role, features) if problem is None else Wrong("wrong", problem)
    )


# --- is it the answer to the question --------------------------------------------------------


def _answered(expected: Expected, model: str, version: str) -> str | None:
    if model != expected.model:
        return f"model `{expected.model}` was asked, `{model}` answered"
    if expected.version and version != expected.version:
        return f"version `{expected.version}` was asked, `{version}` answered"
    return None


def _shaped(expected: Expected, shapes: list[tuple[str, Any]], rows: int | None) -> str | None:
    if not shapes:
        return "an answer without outputs"
    if rows is not None and expected.rows:
        for name, shape in shapes:
            if not shape or shape[0] != rows:
                found = f"shape {list(shape)}"
                return f"output `{name}` has {found} for {rows} row{'s' if rows > 1 else ''}"
    return None


def _within(limits: Mapping[str, Limits], arrays: Mapping[str, NDArray[np.float64]]) -> str | None:
    for name, limit in limits.items():
        if name not in arrays:
            return f"there is no output `{name}`, only {', '.join(sorted(arrays))}"
        if limit.at_least is None and limit.at_most is None:
            continue
        values = arrays[name]
        if not len(values):
            return f"output `{name}` has no numbers"
        low = -math.inf if limit.at_least is None else limit.at_least
        high = math.inf if limit.at_most is None else limit.at_most
        # NaN is within nothing: a comparison with it is false.
        outside = values[~((values >= low) & (values <= high) & np.isfinite(values))]
        if len(outside):
            return f"output `{name}` has {outside[0]:g}, not from {low:g} to {high:g}"
    return None


# --- their numbers ---------------------------------------------------------------------------

_LENGTH: Final = "binary_data_size"


def _arrays(outputs: list[Any], tail: memoryview) -> dict[str, NDArray[np.float64]]:
    """Numbers of outputs by name; a null of JSON is no number."""
    found: dict[str, NDArray[np.float64]] = {}
    at = 0
    for one in outputs:
        size = (one.get("parameters") or {}).get(_LENGTH)
        if size is None:
            found[one["name"]] = _numbers(one["data"])
        else:
            found[one["name"]] = _raw(one["datatype"], tail[at : at + size])
            at += size
    return found


def _messages(answer: Any) -> dict[str, NDArray[np.float64]]:
    raws, outputs = answer.raw_output_contents, answer.outputs
    if raws and len(raws) != len(outputs):
        raise ValueError(f"{len(raws)} raw contents for {len(outputs)} outputs")
    found: dict[str, NDArray[np.float64]] = {}
    for place, one in enumerate(outputs):
        if raws:
            found[one.name] = _raw(one.datatype, raws[place])
        else:
            listed = one.contents.ListFields()
            found[one.name] = _numbers(listed[0][1] if listed else [])
    return found


def _numbers(data: Sequence[Any]) -> NDArray[np.float64]:
    """A flat array of numbers; what is none becomes NaN."""
    if data and isinstance(data[0], list):
        return np.concatenate([_numbers(part) for part in data])
    return np.array([one if isinstance(one, int | float) else math.nan for one in data], np.float64)


def _raw(datatype: str, data: bytes | memoryview) -> NDArray[np.float64]:
    """Little-endian numbers of a tensor; a text is no number."""
    if datatype == "BYTES":
        return np.array([math.nan])
    values = np.frombuffer(data, NUMPY_OF[datatype])
    if datatype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)
