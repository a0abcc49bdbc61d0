"""The OpenAPI document of the admin port, made from the operations themselves."""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from serving.control.admin.operations import Operation

__all__ = ["document"]

_ERRORS: Final = {
    "400": "The request or the configuration is wrong; the message says where.",
    "401": "No credential, or one nobody knows.",
    "403": "A known credential without the role, or a foreign Host or Origin.",
    "404": "No such model or path.",
    "409": "The revision is not the expected one.",
    "503": "The store does not answer, or control is starting.",
}
_SECURITY: Final[dict[str, list[dict[str, list[str]]]]] = {
    "open": [],
    "read": [{}, {"token": []}],
    "operator": [{"token": []}],
    "admin": [{"token": []}],
}


def document(operations: Iterable[Operation], *, version: str) -> dict[str, Any]:
    """OpenAPI 3.1: every path, its parameters, bodies, answers and who may.

    Args:
        operations: everything that is routed.
        version: of this installation.
    """
    operations = list(operations)
    types = [
        kind
        for operation in operations
        for kind in (operation.body, operation.returns)
        if kind is not None and not isinstance(kind, str)
    ]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    known = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, known
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice admin",
            "version": version,
            "description": (
                "Health, metrics, status and configuration of a Sluice gateway. Reading is open "
                "on loopback unless tokens are configured; verbs that change something always "
                "need a token with the role `admin`, labels one with the role `operator`."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": {
                **components,
                "Error": {
                    "type": "object",
                    "required": ["error"],
                    "properties": {
                        "error": {"type": "string"},
                        "problems": {"type": "array", "items": {"type": "string"}},
                        "revision": {"type": "integer"},
                    },
                },
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, known: dict[int, dict[str, Any]]) -> dict[str, Any]:
    errors = _ERRORS if operation.need != "open" else {"503": _ERRORS["503"]}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _identifier(operation),
        "security": _SECURITY[operation.need],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in re.findall(r"{(\w+)}", operation.path)
            ),
            *(
                {
                    "name": parameter.name,
                    "in": "query",
                    "description": parameter.description,
                    "schema": {"type": parameter.type},
                }
                for parameter in operation.query
            ),
        ],
        "responses": {
            "200": {"description": "Answered.", "content": _content(operation.returns, known)},
            **{
                status: {
                    "description": description,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
                    },
                }
                for status, description in errors.items()
            },
        },
    }
    if operation.body is not None:
        content = _content(operation.body, known)
        if operation.lines:
            content["application/x-ndjson"] = {"schema": {"type": "string"}}
        described["requestBody"] = {"content": content}
    return described


def _content(kind: Any, known: dict[int, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(kind, str):
        return {kind: {"schema": {"type": "string"}}}
    return {"application/json": {"schema": known[id(kind)]}}


def _identifier(operation: Operation) -> str:
    words = re.findall(r"[a-z0-9]+", operation.path.lower())
    return "_".join([operation.method.lower(), *words])
