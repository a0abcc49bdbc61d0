"""What an admin endpoint is: one value that routes, authorises, audits and documents it.

`serving.control.admin.application` turns a list of these into an application and
`serving.control.admin.openapi` into a document, so the two cannot disagree.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from serving.control.publishing.plan import as_written
from serving.types import Principal

__all__ = ["Ask", "Need", "Operation", "Parameter", "json_response"]

Need = Literal["open", "read", "operator", "admin"]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One authorised request. `body` is the decoded value of the operation's `body` type."""

    who: Principal
    path: dict[str, str]
    query: dict[str, str]
    accept: str
    body: Any = None


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A query parameter; path parameters are read from the path."""

    name: str
    description: str
    type: Literal["string", "integer"] = "string"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One verb on one path.

    `need` is who may: anybody, readers, operators, admins. `audited` operations leave a line
    whatever comes of them. `body` is the type of the JSON request body, None for no body; an empty
    body then stands for `{}`. `returns` is the type of the answer, or its media type.
    """

    method: Literal["GET", "POST"]
    path: str
    need: Need
    summary: str
    answer: Callable[[Ask], Awaitable[Response]]
    returns: Any
    body: Any = None
    query: list[Parameter] = []
    audited: bool = False
    verb: str = ""
    """What audits call it."""

    lines: str = ""
    """Field of `body` that a body of JSON lines (`application/x-ndjson`) fills, one item each."""


def json_response(value: Any, status: int = 200) -> Response:
    """Answer a struct (or plain values) as JSON; durations and sizes as in YAML."""
    content = msgspec.json.encode(value, enc_hook=as_written)
    return Response(content, status, media_type="application/json")
