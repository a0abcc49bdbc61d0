"""Reading: health, metrics, status, recent predictions."""

import asyncio
from typing import Final

from msgspec.structs import replace
from starlette.responses import Response

from serving.control.admin import answers, overview
from serving.control.admin.operations import Ask, Operation, Parameter, json_response
from serving.control.fleet import worker_sockets
from serving.control.plane import ControlPlane
from serving.errors import InvalidRequest

__all__ = ["StatusRoutes", "status_of", "whole_number"]

_MOST_RECENT: Final = 1000


class StatusRoutes:
    """Endpoints that change nothing."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        model = Parameter(name="model", description="Only this model's. Empty: all.")
        limit = Parameter(
            name="limit", description=f"At most {_MOST_RECENT}; 100 if left out.", type="integer"
        )
        return [
            Operation(
                method="GET",
                path="/healthz",
                need="open",
                summary="Whether this process answers.",
                answer=self._health,
                returns=answers.Health,
            ),
            Operation(
                method="GET",
                path="/readyz",
                need="open",
                summary="Whether the store answers and a worker serves the current revision.",
                answer=self._ready,
                returns=answers.Readiness,
            ),
            Operation(
                method="GET",
                path="/metrics",
                need="read",
                summary="Metrics of all processes, in Prometheus' text format.",
                answer=self._metrics,
                returns="text/plain",
            ),
            Operation(
                method="GET",
                path="/api/v1/status",
                need="read",
                summary="Models, versions, their traffic and the workers that serve them.",
                answer=self._status,
                returns=answers.Status,
            ),
            Operation(
                method="GET",
                path="/api/v1/predictions/recent",
                need="read",
                summary="The latest predictions of all workers; no feature values.",
                answer=self._recent,
                returns=answers.RecentAnswer,
                query=[model, limit],
            ),
        ]

    async def _health(self, ask: Ask) -> Response:
        del ask
        return json_response(answers.Health())

    async def _ready(self, ask: Ask) -> Response:
        del ask
        plane = self._plane
        reports = await plane.workers()
        readiness = overview.is_ready(
            reports,
            plane.publisher.revision,
            plane.clock.wall(),
            store_up=plane.publisher.started and plane.publisher.upkeep.store_up,
        )
        readiness = replace(readiness, quarantined=len(plane.quarantine.entries))
        return json_response(readiness, 200 if readiness.ready else 503)

    async def _metrics(self, ask: Ask) -> Response:
        await self._plane.workers()
        body, content_type = await asyncio.to_thread(self._plane.page.render, ask.accept)
        return Response(body, headers={"content-type": content_type})

    async def _status(self, ask: Ask) -> Response:
        del ask
        return json_response(await status_of(self._plane))

    async def _recent(self, ask: Ask) -> Response:
        limit = whole_number(ask.query, "limit", 100, most=_MOST_RECENT)
        records, silent = await worker_sockets.recent(
            self._plane.sockets, model=ask.query.get("model", ""), limit=limit
        )
        return json_response(answers.RecentAnswer(predictions=records, unreachable=silent))


async def status_of(plane: ControlPlane) -> answers.Status:
    """Everything at a glance."""
    reports = await plane.workers()
    publisher, now = plane.publisher, plane.clock.wall()
    current = publisher.current
    return answers.Status(
        version=plane.version,
        ready=overview.is_ready(
            reports, publisher.revision, now, store_up=publisher.upkeep.store_up
        ).ready,
        revision=publisher.revision,
        author=current.author if current else "",
        published_at=current.published_at if current else 0.0,
        store=answers.StoreStatus(name=publisher.upkeep.store_name, up=publisher.upkeep.store_up),
        models=overview.model_statuses(current, reports) if current else [],
        workers=overview.worker_statuses(reports, now),
        rates=plane.rates.now(),
        problem=publisher.problem,
        quarantined=overview.quarantine_statuses(plane.quarantine.entries),
        drift=overview.drift_levels(plane.drift.watched.values()),
        roll=await plane.roll_status(),
        rollouts=plane.rollouts.standings(),
        origin=publisher.journal.last.origin if publisher.journal.last is not None else None,
    )


def whole_number(query: dict[str, str], name: str, default: int, *, most: int) -> int:
    """Read a query parameter from 1 to `most`. Raises InvalidRequest naming it."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise InvalidRequest(f"the query parameter `{name}` must be a number from 1 to {most}")
    return int(text)
