"""The quarantine: look at it, and let a version back."""

import asyncio
from typing import Final

from starlette.responses import Response

from serving.control.admin import answers, overview
from serving.control.admin.operations import Ask, Operation, json_response
from serving.control.fleet.workers import names_of, state_of
from serving.control.plane import ControlPlane

__all__ = ["QuarantineRoutes"]

_POLL_SECONDS: Final = 0.05
_WAIT_SECONDS: Final = 10.0


class QuarantineRoutes:
    """Endpoints under `/api/v1/quarantine`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="GET",
                path="/api/v1/quarantine",
                need="read",
                summary="Versions that crashed workers and get no requests.",
                answer=self._list,
                returns=answers.QuarantineAnswer,
            ),
            Operation(
                method="POST",
                path="/api/v1/quarantine/{model}/{version}/lift",
                need="admin",
                summary="Let a version back, and wait for the workers to load it.",
                answer=self._lift,
                returns=answers.LiftAnswer,
                audited=True,
                verb="lift",
            ),
        ]

    async def _list(self, ask: Ask) -> Response:
        del ask
        entries = self._plane.quarantine.entries
        return json_response(
            answers.QuarantineAnswer(quarantined=overview.quarantine_statuses(entries))
        )

    async def _lift(self, ask: Ask) -> Response:
        model, version = ask.path["model"], ask.path["version"]
        await self._plane.quarantine.lift(model, version)
        return json_response(
            answers.LiftAnswer(
                model=model, version=version, waiting=await self._waiting(f"{model}/{version}")
            )
        )

    async def _waiting(self, name: str) -> list[str]:
        """Workers that keep the version out, after they have had time to let it in."""
        clock = self._plane.clock
        until = clock.monotonic() + _WAIT_SECONDS
        while True:
            reports = await self._plane.workers()
            named = names_of(reports)
            waiting = [
                named[report.key]
                for report in reports
                if name in report.not_ready and state_of(report, clock.wall()) != "silent"
            ]
            if not waiting or clock.monotonic() >= until:
                return waiting
            await asyncio.sleep(_POLL_SECONDS)
