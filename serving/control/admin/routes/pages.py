"""`/`, `/docs` and `/openapi.json`."""

from typing import Any

from starlette.responses import HTMLResponse, Response

from serving.control.admin.openapi import document
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.admin.pages import docs_page, status_page
from serving.control.admin.routes.status import status_of
from serving.control.plane import ControlPlane

__all__ = ["PageRoutes"]


class PageRoutes:
    """`/`, `/docs` and `/openapi.json`. `described` is everything that is routed, also these."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.described: list[Operation] = []

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="GET",
                path="/",
                need="read",
                summary="A status page for people.",
                answer=self._home,
                returns="text/html",
            ),
            Operation(
                method="GET",
                path="/docs",
                need="read",
                summary="This description, for people.",
                answer=self._docs,
                returns="text/html",
            ),
            Operation(
                method="GET",
                path="/openapi.json",
                need="read",
                summary="This description, for programs (OpenAPI 3.1).",
                answer=self._openapi,
                returns=dict[str, Any],
            ),
        ]

    async def _home(self, ask: Ask) -> Response:
        del ask
        return HTMLResponse(status_page(await status_of(self._plane), self._plane.clock.wall()))

    async def _docs(self, ask: Ask) -> Response:
        del ask
        return HTMLResponse(docs_page(self.described))

    async def _openapi(self, ask: Ask) -> Response:
        del ask
        return json_response(document(self.described, version=self._plane.version))
