"""Labels in, performance out."""

from typing import Final, get_args

from starlette.responses import Response

from serving.config.units import Seconds
from serving.control.admin import questions
from serving.control.admin.operations import Ask, Operation, Parameter, json_response
from serving.control.labels.desk import LabelsTaken
from serving.control.labels.joiner_orders import By
from serving.control.plane import ControlPlane
from serving.errors import InvalidRequest
from serving.performance.report import PerformanceReport

__all__ = ["LabelRoutes"]

_BY: Final[tuple[By, ...]] = get_args(By)


class LabelRoutes:
    """Endpoints `/api/v1/labels` and under `/api/v1/performance`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="POST",
                path="/api/v1/labels",
                need="operator",
                summary="Say what came true of predictions: all of it is taken, or, unless "
                "`partial`, nothing if one item is invalid.",
                answer=self._take,
                body=questions.LabelsRequest,
                lines="labels",
                query=[
                    Parameter(name="model", description="Of items that do not say it."),
                    Parameter(name="source", description="Of items that do not say it."),
                ],
                returns=LabelsTaken,
            ),
            Operation(
                method="GET",
                path="/api/v1/performance/{model}",
                need="read",
                summary="How well a model does by the labels it has, with intervals.",
                answer=self._performance,
                query=[
                    Parameter(name="by", description=f"One of {', '.join(_BY)}."),
                    Parameter(name="last", description="Only predictions this new, such as `7d`."),
                ],
                returns=PerformanceReport,
            ),
        ]

    async def _take(self, ask: Ask) -> Response:
        request: questions.LabelsRequest = ask.body
        return json_response(
            await self._plane.labels.take(
                request.labels,
                actor=ask.who.name,
                model=request.model or ask.query.get("model", ""),
                source=request.source or ask.query.get("source", ""),
                partial=request.partial,
                dry_run=request.dry_run,
            )
        )

    async def _performance(self, ask: Ask) -> Response:
        by = ask.query.get("by", "version")
        wanted = next((one for one in _BY if one == by), None)
        if wanted is None:
            raise InvalidRequest(f"`by` is '{by[:64]}', and not one of {', '.join(_BY)}")
        return json_response(
            await self._plane.labels.performance(
                ask.path["model"], by=wanted, last=_duration(ask.query.get("last"))
            )
        )


def _duration(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return float(Seconds.parse(text))
    except ValueError as error:
        raise InvalidRequest(f"`last`: {error}") from error
