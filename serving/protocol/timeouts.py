"""Timeouts stated in transport headers, as seconds."""

import re
from typing import Final

from serving.errors import InvalidRequest

__all__ = ["parse_grpc_timeout", "parse_request_timeout"]

# [0-9], not \d: float() would read the digits of any script. The digit counts keep the result
# finite; whether it is sensible is the pipeline's decision, which clamps it.
_REQUEST: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s|)\Z")
_REQUEST_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0}

# TimeoutValue TimeoutUnit of the gRPC over HTTP/2 specification: at most eight digits.
_GRPC: Final = re.compile(r"([0-9]{1,8})([HMSmun])\Z")
_GRPC_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def parse_request_timeout(text: str) -> float:
    """Seconds from an `x-request-timeout` header: `250ms`, `0.25s`, `800us`, or bare seconds.

    Raises:
        InvalidRequest: anything else, or a timeout of zero.
    """
    match = _REQUEST.match(text.strip(" \t"))
    seconds = float(match[1]) * _REQUEST_UNITS[match[2]] if match is not None else 0.0
    if seconds <= 0.0:
        raise InvalidRequest(
            "x-request-timeout must be a positive number of seconds or carry a unit"
            " (us, ms, s), such as 250ms or 0.25"
        )
    return seconds


def parse_grpc_timeout(text: str) -> float:
    """Seconds from a `grpc-timeout` header: up to eight digits and one of H M S m u n.

    Zero is legal there: a client whose own deadline has just passed sends it.

    Raises:
        InvalidRequest: anything else.
    """
    match = _GRPC.match(text)
    if match is None:
        raise InvalidRequest(
            "grpc-timeout must be one to eight digits and a unit (H, M, S, m, u, n), such as 250m"
        )
    return float(match[1]) * _GRPC_UNITS[match[2]]
