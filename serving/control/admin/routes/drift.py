"""How traffic compares with each model's reference: for programs, and as a page."""

import asyncio
import contextlib
import shlex
from typing import Final

from starlette.responses import HTMLResponse, Response

from serving.control.admin.answers import DriftAnswer
from serving.control.admin.operations import Ask, Operation, Parameter, json_response
from serving.control.plane import ControlPlane
from serving.errors import NotFound
from serving.report.page import ModelReport, page

__all__ = ["DriftRoutes"]

_EVENTS: Final = 50
"""Changes of level that are shown."""


class DriftRoutes:
    """Endpoints under `/api/v1/drift`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="GET",
                path="/api/v1/drift/{model}",
                need="read",
                summary="A model's traffic against its reference: drift, data quality, verdict.",
                answer=self._report,
                returns=DriftAnswer,
                query=[
                    Parameter(name="version", description="Only this version's. Empty: all."),
                    Parameter(name="role", description="Only in this role. Empty: any."),
                ],
            ),
            Operation(
                method="GET",
                path="/drift/{model}",
                need="read",
                summary="The same as a page for people.",
                answer=self._page,
                returns="text/html",
            ),
        ]

    async def _page(self, ask: Ask) -> Response:
        found = await self._found(ask)
        report = ModelReport(
            model=found.model,
            at=self._plane.clock.wall(),
            sluice=self._plane.version,
            command=shlex.join(["sluice", "drift", found.model, "--html", "FILE"]),
            words=found.words,
            watched=found.watched,
            notes=["`sluice drift` has performance beside it, where there are labels"],
        )
        return HTMLResponse(await asyncio.to_thread(page, report))

    async def _report(self, ask: Ask) -> Response:
        return json_response(await self._found(ask))

    async def _found(self, ask: Ask) -> DriftAnswer:
        model = ask.path["model"]
        snapshot = self._plane.publisher.current
        if snapshot is None or model not in snapshot.models:
            raise NotFound(f"Request for unknown model: '{model[:128]}' is not found")
        version, role = ask.query.get("version", ""), ask.query.get("role", "")
        if version and version not in snapshot.models[model].versions:
            raise NotFound(f"model '{model}' has no version '{version[:64]}'")
        with contextlib.suppress(OSError):  # then what was judged last has to do
            await asyncio.to_thread(self._plane.drift.look)
        found = [
            watched
            for (name, one, its), watched in sorted(self._plane.drift.watched.items())
            if name == model and version in ("", one) and role in ("", its)
        ]
        has_reference = model in snapshot.references
        if not has_reference:
            words = "it has no `monitoring.reference`; `sluice drift freeze` makes one"
        elif not found:
            words = "no request was counted yet"
        else:
            words = ""
        monitoring = snapshot.models[model].monitoring
        retrained = monitoring is not None and monitoring.retrain is not None
        plane = self._plane
        return DriftAnswer(
            model=model,
            has_reference=has_reference,
            watched=found,
            words=words,
            harm=[
                harm for one, harm in sorted(plane.harm.of(model).items()) if version in ("", one)
            ],
            harm_problem=plane.harm.problems.get(model, "") if retrained else "",
            retraining=await plane.retraining.status(model) if retrained else None,
            events=plane.drift.events.newest(model, _EVENTS),
        )
