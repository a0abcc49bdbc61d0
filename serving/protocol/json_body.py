"""A request's JSON text to Python values, with the checks that orjson leaves out.

orjson itself refuses NaN, Infinity, numbers beyond a double, lone surrogates, a byte order mark
and nesting beyond 1,024 levels, and does not recurse on Python's stack, so parsing first and
looking afterwards is safe. Two things it accepts are refused here:

- Nesting deeper than `limits.max_json_depth`. The known parts of a request have a known depth
  (data cannot be deeper than its shape), so only values under unknown keys are walked.
- A key given twice in one object, of which orjson keeps the last. Every pair has one colon, so
  a text with more colons outside strings than there are pairs in the values lost one.
"""

import json
from typing import Any, Final

import numpy as np
import orjson

from serving.errors import InvalidRequest
from serving.protocol.shapes import TensorLimits

__all__ = ["check_keys", "parse"]

_REQUEST_KEYS: Final = frozenset({"id", "parameters", "inputs", "outputs"})
_INPUT_KEYS: Final = frozenset({"name", "shape", "datatype", "parameters", "data"})
_OUTPUT_KEYS: Final = frozenset({"name", "parameters"})

_NOT_JSON: Final = ("NaN", "nan", "Infinity", "-Infinity", "inf", "-inf")
_CONTAINERS: Final = frozenset({dict, list})
# Up to here the arrays and objects of the worst text take a few MiB: not worth counting.
_SMALL_TEXT: Final = 64 * 1024
# bytes.count costs 0.4 ns per byte; numpy 1 µs and 0.05 ns per byte.
_NUMPY_PAYS: Final = 4096
# An array takes 72 bytes and its place in a list 8: one per 4 elements stays below what the
# elements of a plain list of floats take. Only inputs, outputs and parameters are objects.
_ELEMENTS_PER_ARRAY: Final = 4
_MAX_OBJECTS: Final = 65_536
_STRUCTURE: Final = bytes(set(range(256)) - set(b'[{:"\\'))


def parse(text: bytes, limits: TensorLimits) -> dict[str, Any]:
    """Parse a request.

    Raises:
        InvalidRequest: not JSON, not an object, or so many arrays or objects that they would
            take far more memory than `limits.max_elements` numbers.
    """
    if len(text) > _SMALL_TEXT:
        _check_containers(text, limits)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(_explain(error, limits)) from None
    if type(document) is not dict:
        raise InvalidRequest("the body must be a JSON object with inputs")
    return document


def check_keys(text: bytes, document: dict[str, Any], limits: TensorLimits) -> None:
    """Refuse keys given twice and values nested too deeply, in an otherwise valid request.

    Raises:
        InvalidRequest: naming the key where that is possible.
    """
    depth = limits.max_json_depth
    pairs = len(document)
    if not document.keys() <= _REQUEST_KEYS:
        pairs += _unknown(document, _REQUEST_KEYS, depth - 1, limits)
    if parameters := document.get("parameters"):
        pairs += len(parameters)
    for entry in document["inputs"]:
        pairs += len(entry)
        if parameters := entry.get("parameters"):
            pairs += len(parameters)
        if not entry.keys() <= _INPUT_KEYS:
            pairs += _unknown(entry, _INPUT_KEYS, depth - 3, limits)
    for entry in document.get("outputs") or ():
        pairs += len(entry)
        if parameters := entry.get("parameters"):
            pairs += len(parameters)
        if not entry.keys() <= _OUTPUT_KEYS:
            pairs += _unknown(entry, _OUTPUT_KEYS, depth - 3, limits)
    if _count(text, b":") != pairs and _without_strings(text).count(b":") != pairs:
        raise InvalidRequest(f"the body gives {_repeated(text)} twice in one object")


def _unknown(entry: dict[str, Any], known: frozenset[str], room: int, limits: TensorLimits) -> int:
    """Count the pairs inside the values of unknown keys; at most `room` levels of values."""
    pairs = 0
    level = [v for key, v in entry.items() if key not in known and type(v) in _CONTAINERS]
    while level:
        if room <= 0:
            raise InvalidRequest(_too_deep(limits))
        room -= 1
        inner: list[Any] = []
        for container in level:
            values = container
            if type(container) is dict:
                pairs += len(container)
                values = container.values()
            inner += [value for value in values if type(value) in _CONTAINERS]
        level = inner
    return pairs


def _check_containers(text: bytes, limits: TensorLimits) -> None:
    arrays = max(limits.max_elements // _ELEMENTS_PER_ARRAY, _MAX_OBJECTS)
    if _count(text, b"[") <= arrays and _count(text, b"{") <= _MAX_OBJECTS:
        return
    structure = _without_strings(text)
    if structure.count(b"[") > arrays or structure.count(b"{") > _MAX_OBJECTS:
        raise InvalidRequest(
            f"the body holds more than {arrays} arrays or {_MAX_OBJECTS} objects, nested or"
            " side by side; send data flat, or as binary tensor data"
        )


def _count(text: bytes, sign: bytes) -> int:
    if len(text) < _NUMPY_PAYS:
        return text.count(sign)
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == sign[0]))


def _without_strings(text: bytes) -> bytes:
    r"""Reduce valid JSON to its signs `[`, `{`, `:` outside strings, a few ns per byte.

    After everything else is gone, backslashes only stand in strings; escaped backslashes go
    before escaped quotes, so each remaining quote opens or closes a string. Removing two quotes
    side by side leaves the rest on the side of a quote where it was.
    """
    signs = text.translate(None, _STRUCTURE)
    if b"\\" in signs:
        # Not from `signs`, where the characters between two backslashes are gone.
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
        signs = text.translate(None, _STRUCTURE + b"\\")
    return b"".join(signs.replace(b'""', b"").split(b'"')[::2])


class _Repeated(ValueError):
    """Carries the key out of the standard library's parser."""


def _repeated(text: bytes) -> str:
    """Name the key that is given twice; only ever called for a text that has one."""
    try:
        json.loads(text, object_pairs_hook=_pairs)
    except _Repeated as found:
        return f"the key '{found}'"
    except (ValueError, RecursionError):
        pass
    return "a key"


def _pairs(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _Repeated(key[:64])
        seen.add(key)


def _explain(error: orjson.JSONDecodeError, limits: TensorLimits) -> str:
    if "depth" in error.msg or "recursion" in error.msg:
        return _too_deep(limits)
    found = error.doc[error.pos : error.pos + 9]
    if found.startswith(_NOT_JSON):
        return (
            f"the body is not valid JSON: {error}; JSON has no NaN or Infinity,"
            " send such values as binary tensor data"
        )
    return f"the body is not valid JSON: {error}"


def _too_deep(limits: TensorLimits) -> str:
    return f"the body nests deeper than {limits.max_json_depth} levels (limits.max_json_depth)"
