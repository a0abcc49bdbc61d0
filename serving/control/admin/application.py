"""The admin port: operations become an application, and every call goes the same way.

Host → Origin → identity → body → answer, errors through one table, verbs into the audit log.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from serving.config.identity import ANONYMOUS
from serving.config.snapshot_codec import dec_hook
from serving.control.admin.access import Access, check_host, check_origin
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.admin.routes.candidates import CandidateRoutes
from serving.control.admin.routes.config import ConfigRoutes
from serving.control.admin.routes.drift import DriftRoutes
from serving.control.admin.routes.features import FeatureRoutes
from serving.control.admin.routes.labels import LabelRoutes
from serving.control.admin.routes.log import LogRoutes
from serving.control.admin.routes.pages import PageRoutes
from serving.control.admin.routes.quarantine import QuarantineRoutes
from serving.control.admin.routes.repository import RepositoryRoutes
from serving.control.admin.routes.retraining import RetrainingRoutes
from serving.control.admin.routes.rollouts import RolloutRoutes
from serving.control.admin.routes.status import StatusRoutes
from serving.control.audit import AuditLog
from serving.control.plane import ControlPlane
from serving.errors import (
    BodyTooLarge,
    Conflict,
    InvalidConfig,
    InvalidRequest,
    NotFound,
    Overloaded,
    RequestTimeout,
    SluiceError,
    Unauthenticated,
)
from serving.protocol import status

__all__ = ["Listener", "build", "operations_of"]

_LARGEST_BODY: Final = 1 << 20
_BODY_SECONDS: Final = 10.0
_LINES: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    # Our pages have one inline style sheet and nothing else: no script can run, whatever a
    # model is called.
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
}
_LOG = logging.getLogger("control")

Endpoint = Callable[[Request], Awaitable[Response]]


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """What endpoints must know of the socket they are reached through."""

    host: str
    """The host that `listen.admin` names."""

    access: Access
    tls: bool = False


def operations_of(plane: ControlPlane) -> list[Operation]:
    """Everything the admin port does."""
    pages = PageRoutes(plane)
    operations = [
        *pages.operations(),
        *StatusRoutes(plane).operations(),
        *ConfigRoutes(plane).operations(),
        *RepositoryRoutes(plane).operations(),
        *QuarantineRoutes(plane).operations(),
        *DriftRoutes(plane).operations(),
        *FeatureRoutes(plane).operations(),
        *LogRoutes(plane).operations(),
        *LabelRoutes(plane).operations(),
        *RetrainingRoutes(plane).operations(),
        *CandidateRoutes(plane).operations(),
        *RolloutRoutes(plane).operations(),
    ]
    pages.described = operations
    return operations


def build(operations: list[Operation], listener: Listener, audit: AuditLog) -> Starlette:
    """Make the application of one listener."""
    app = Starlette(
        routes=[
            Route(
                operation.path,
                _Call(operation, listener, audit).answer,
                methods=[operation.method],
            )
            for operation in operations
        ],
        exception_handlers={HTTPException: _not_routed},
    )
    app.router.redirect_slashes = False
    return app


class _Call:
    """One operation behind one listener."""

    def __init__(self, operation: Operation, listener: Listener, audit: AuditLog) -> None:
        self._operation = operation
        self._listener = listener
        self._audit = audit

    async def answer(self, request: Request) -> Response:
        """Answer one request, whatever happens."""
        who = [ANONYMOUS.name]
        problem: Exception | None = None
        result = "ok"
        try:
            response = await self._authorised(request, who)
        except SluiceError as error:
            response = error_response(error)
            result, problem = f"{type(error).__name__}: {error.message}", error
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - the one place that turns mistakes into 500
            _LOG.exception("%s %s failed", self._operation.method, self._operation.path)
            response = error_response(error)
            result, problem = "internal error", error
        if self._operation.audited:
            await self._record(request, who[0], result, response, problem)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _authorised(self, request: Request, who: list[str]) -> Response:
        operation, listener = self._operation, self._listener
        host = check_host(request.headers.getlist("host"), listener.host)
        if operation.need in ("operator", "admin"):
            check_origin(request.headers.getlist("origin"), host, tls=listener.tls)
        credentials = request.headers.getlist("authorization")
        if len(credentials) > 1:
            raise InvalidRequest("more than one Authorization header")
        credential = credentials[0] if credentials else None
        principal = listener.access.identify(credential, operation.need)
        who[0] = principal.name
        listener.access.allow(principal, operation.need)
        body = await _decoded(request, operation) if operation.body else None
        return await operation.answer(
            Ask(
                who=principal,
                path={name: str(value) for name, value in request.path_params.items()},
                query=dict(request.query_params),
                accept=request.headers.get("accept", ""),
                body=body,
            )
        )

    async def _record(
        self,
        request: Request,
        who: str,
        result: str,
        response: Response,
        problem: Exception | None,
    ) -> None:
        revision = 0
        if problem is None:
            answered = msgspec.json.decode(response.body)
            revision = answered.get("revision", 0)
            if answered.get("published") is False:
                result = "nothing to change"
        try:
            await self._audit.record(
                who=who,
                verb=self._operation.verb,
                subject="/".join(map(str, request.path_params.values())) or "configuration",
                result=result,
                revision=revision,
                anonymous=who == ANONYMOUS.name,
            )
        except OSError as error:
            _LOG.critical("the audit log cannot be written: %s", error.strerror)


async def _decoded(request: Request, operation: Operation) -> Any:
    """The body as the operation's type: JSON, or JSON lines where it takes them."""
    body = await _body(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if operation.lines and media_type in _LINES:
        return decode_lines(body, operation.body, operation.lines)
    return decode_body(body, operation.body)


async def _body(request: Request) -> bytes:
    """Read a body that is neither too long nor too slow."""
    body = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _LARGEST_BODY:
                    raise BodyTooLarge(f"the body is longer than {_LARGEST_BODY} bytes")
    except TimeoutError as error:
        raise RequestTimeout(f"the body took longer than {_BODY_SECONDS:g} s") from error
    return body


def decode_body(body: bytes, kind: Any) -> Any:
    """Decode a JSON body; an empty one is `{}`. Raises InvalidRequest naming the field."""
    try:
        return msgspec.json.decode(body or b"{}", type=kind, dec_hook=dec_hook)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not what is expected: {error}") from error


def decode_lines(body: bytes, kind: Any, field: str) -> Any:
    """Decode a body of one JSON value a line into one field; empty lines are none.

    Raises:
        InvalidRequest: naming the line, from 1.
    """
    items = []
    for number, line in enumerate(body.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            items.append(msgspec.json.decode(line))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"line {number} of the body is no JSON: {error}") from error
    return msgspec.convert({field: items}, kind)


def error_response(error: BaseException) -> Response:
    """Turn an error into its status and `{"error": …}`."""
    body: dict[str, Any] = {"error": status.public_message(error)}
    headers = {}
    match error:
        case InvalidConfig():
            body["problems"] = [str(problem) for problem in error.problems]
        case Conflict():
            body["revision"] = error.revision
            if error.newer is not None:
                body["standing"] = error.newer
        case Overloaded():
            headers["retry-after"] = str(max(1, round(error.retry_after_seconds)))
        case Unauthenticated():
            headers["www-authenticate"] = 'Bearer realm="sluice"'
        case _:
            pass
    response = json_response(body, status.http_status(error))
    response.headers.update(headers)
    return response


async def _not_routed(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        response = json_response({"error": "this path does not take that method"}, 405)
    else:
        response = error_response(NotFound("no such path; `/docs` lists them"))
    response.headers.update({**_HEADERS, **(error.headers or {})})
    return response
