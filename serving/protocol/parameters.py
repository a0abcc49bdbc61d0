"""Request parameters that steer the server, checked alike for HTTP and gRPC.

Names: Open Inference Protocol V2 (`binary_data_output`), Triton's classification, sequence and
schedule policy extensions. What the server does not know it hands on untouched.
"""

from typing import Any, Final

from serving.errors import InvalidRequest
from serving.types import ParameterValue, RequestedOutput

__all__ = ["check_request", "check_values", "requested_output"]

_VALUES: Final = frozenset({str, int, float, bool})
_COUNTS: Final = ("timeout", "priority")


def check_values(parameters: object, where: str) -> dict[str, ParameterValue]:
    """Check parsed JSON `parameters`: an object whose values are strings, numbers or booleans.

    Raises:
        InvalidRequest: anything else; `where` says whose parameters they are.
    """
    if type(parameters) is not dict:
        raise InvalidRequest(f"{where}: parameters must be an object")
    for key, value in parameters.items():
        if type(value) not in _VALUES:
            raise InvalidRequest(
                f"{where}: parameter '{key[:64]}' must be a string, a number or a boolean"
            )
    return parameters


def check_request(parameters: dict[str, ParameterValue]) -> None:
    """Check the request parameters this server acts on.

    Raises:
        InvalidRequest: a `sequence_id` (stateful models are not served), a `timeout`
            (microseconds) or `priority` that is not a non-negative integer, or a
            `binary_data_output` that is not a boolean.
    """
    if parameters.get("sequence_id") not in (None, 0, "", "0"):
        raise InvalidRequest(
            "parameter 'sequence_id': stateful sequences are not served; leave it out"
        )
    if type(parameters.get("binary_data_output", False)) is not bool:
        raise InvalidRequest("parameter 'binary_data_output' must be true or false")
    for key in _COUNTS:
        value = parameters.get(key)
        if value is not None and (type(value) is not int or value < 0):
            unit = " of microseconds" if key == "timeout" else ""
            raise InvalidRequest(f"parameter '{key}' must be a non-negative whole number{unit}")


def requested_output(name: str, parameters: dict[str, Any]) -> RequestedOutput:
    """Read a requested output's parameters: `binary_data`, `classification`.

    Raises:
        InvalidRequest: one of them has the wrong type, or shared memory is asked for.
    """
    binary = parameters.get("binary_data")
    if binary is not None and type(binary) is not bool:
        raise InvalidRequest(f"output '{name}': parameter 'binary_data' must be true or false")
    top = parameters.get("classification", 0)
    if type(top) is not int or top < 0:
        raise InvalidRequest(
            f"output '{name}': parameter 'classification' must be a non-negative whole number"
        )
    if "shared_memory_region" in parameters:
        raise InvalidRequest(f"output '{name}': shared memory is not served")
    return RequestedOutput(name, binary, top)
