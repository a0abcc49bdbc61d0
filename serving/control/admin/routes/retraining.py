"""Requests for training: where they stand, and what people and pipelines say of them."""

from starlette.responses import Response

from serving.control.admin import questions
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.plane import ControlPlane
from serving.control.training.retraining import RetrainingStatus

__all__ = ["RetrainingRoutes"]


class RetrainingRoutes:
    """Endpoints under `/api/v1/retraining`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="GET",
                path="/api/v1/retraining/{model}",
                need="read",
                summary="What was asked for, what became of it, and why nothing is asked now.",
                answer=self._status,
                returns=RetrainingStatus,
            ),
            Operation(
                method="POST",
                path="/api/v1/retraining/{model}/ask",
                need="admin",
                summary="Ask for a training now, whatever the numbers say.",
                answer=self._ask,
                body=questions.RetrainingAsk,
                returns=RetrainingStatus,
                audited=True,
                verb="retraining ask",
            ),
            Operation(
                method="POST",
                path="/api/v1/retraining/{model}/ended",
                need="operator",
                summary="Say that a training is over, and whether it improved anything.",
                answer=self._ended,
                body=questions.RetrainingEnd,
                returns=RetrainingStatus,
                audited=True,
                verb="retraining ended",
            ),
            Operation(
                method="POST",
                path="/api/v1/retraining/{model}/resume",
                need="admin",
                summary="A person has looked: failures are forgotten, the budget begins anew.",
                answer=self._resume,
                returns=RetrainingStatus,
                audited=True,
                verb="retraining resume",
            ),
        ]

    async def _status(self, ask: Ask) -> Response:
        return json_response(await self._plane.retraining.status(ask.path["model"]))

    async def _ask(self, ask: Ask) -> Response:
        request: questions.RetrainingAsk = ask.body
        return json_response(
            await self._plane.retraining.ask(
                ask.path["model"], who=ask.who.name, reason=request.reason
            )
        )

    async def _ended(self, ask: Ask) -> Response:
        request: questions.RetrainingEnd = ask.body
        return json_response(
            await self._plane.retraining.ended(ask.path["model"], improved=request.improved)
        )

    async def _resume(self, ask: Ask) -> Response:
        return json_response(await self._plane.retraining.resume(ask.path["model"]))
