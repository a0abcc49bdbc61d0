"""Pushing rows into a view."""

from starlette.responses import Response

from serving.control.admin import questions
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.features.writer import Written
from serving.control.plane import ControlPlane

__all__ = ["FeatureRoutes"]


class FeatureRoutes:
    """Endpoints under `/api/v1/features`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="POST",
                path="/api/v1/features/{view}",
                need="admin",
                summary="Write rows of a view: all of them, or none if one does not fit.",
                answer=self._push,
                body=questions.PushRequest,
                returns=Written,
            ),
        ]

    async def _push(self, ask: Ask) -> Response:
        request: questions.PushRequest = ask.body
        return json_response(await self._plane.features.push(ask.path["view"], request.rows))
