"""The configuration: look at it, plan a change, apply it, and see what was applied before."""

import asyncio
from pathlib import Path
from typing import Final

from msgspec.structs import replace
from starlette.responses import Response

from serving.control.admin import answers, overview, questions
from serving.control.admin.operations import Ask, Operation, Parameter, json_response
from serving.control.admin.routes.status import whole_number
from serving.control.fleet.workers import Acknowledgement
from serving.control.plane import ControlPlane
from serving.control.publishing.outcome import Outcome
from serving.control.rollouts.traffic_seen import Assumed
from serving.errors import InvalidRequest, ModelNotReady
from serving.rollout.forecast import Forecast, forecast

__all__ = ["ConfigRoutes"]

_LONGEST_HISTORY: Final = 1000


class ConfigRoutes:
    """Endpoints under `/api/v1/config`, and the history."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        limit = Parameter(name="limit", description="Entries; 20 if left out.", type="integer")
        return [
            Operation(
                method="GET",
                path="/api/v1/config",
                need="read",
                summary="The configuration that is served, without secrets.",
                answer=self._config,
                returns=answers.ConfigAnswer,
            ),
            Operation(
                method="GET",
                path="/api/v1/history",
                need="read",
                summary="Who published which revision, when and why, and what it changed.",
                answer=self._history,
                returns=answers.HistoryAnswer,
                query=[limit],
            ),
            Operation(
                method="POST",
                path="/api/v1/config/plan",
                # Not `read`: it makes control open files that the caller names.
                need="admin",
                summary="What applying a directory would change; changes nothing.",
                answer=self._plan,
                body=questions.PlanRequest,
                returns=answers.ApplyAnswer,
            ),
            Operation(
                method="POST",
                path="/api/v1/config/apply",
                need="admin",
                summary="Serve a directory's configuration, and wait for the workers.",
                answer=self._apply,
                body=questions.ApplyRequest,
                returns=answers.ApplyAnswer,
                audited=True,
                verb="apply",
            ),
            Operation(
                method="POST",
                path="/api/v1/roll",
                need="admin",
                summary="Replace every process, one by one, by one of the code on disk now.",
                answer=self._roll,
                body=questions.RollRequest,
                returns=answers.RollAnswer,
                audited=True,
                verb="roll",
            ),
        ]

    async def _config(self, ask: Ask) -> Response:
        del ask
        current = self._plane.publisher.current
        if current is None:
            raise ModelNotReady("no configuration has been published yet")
        return json_response(overview.config_answer(current, self._plane.gateway))

    async def _history(self, ask: Ask) -> Response:
        limit = whole_number(ask.query, "limit", 20, most=_LONGEST_HISTORY)
        return json_response(await asyncio.to_thread(self._newest, limit))

    def _newest(self, limit: int) -> answers.HistoryAnswer:
        # One more than is shown, because an entry shows what it changed.
        return overview.history(self._plane.publisher.journal.newest(limit + 1), limit)

    async def _plan(self, ask: Ask) -> Response:
        request: questions.PlanRequest = ask.body
        outcome = await self._plane.publisher.plan(_absolute(request.directory))
        return json_response(await self._planned(outcome, request))

    async def _apply(self, ask: Ask) -> Response:
        request: questions.ApplyRequest = ask.body
        directory = _absolute(request.directory)
        publisher = self._plane.publisher
        if request.dry_run:
            publisher.expect(request.expected_revision)
            outcome = await publisher.plan(directory)
            return json_response(await self._planned(outcome, Assumed()))
        outcome = await publisher.apply(
            directory,
            author=ask.who.name,
            expected_revision=request.expected_revision,
            expected_digest=request.expected_digest,
            reason=request.reason,
        )
        until = self._plane.clock.monotonic() + request.wait_seconds
        workers = await self._plane.until_settled(outcome.revision, request.wait_seconds)
        answer = replace(_answer(outcome, workers), held=self._held(outcome))
        if outcome.published and outcome.plan.is_followed:
            left = until - self._plane.clock.monotonic()
            roll = await self._plane.until_rolled(left)
            workers = await self._plane.until_settled(outcome.revision, 0.0)
            answer = replace(answer, roll=roll, workers=workers)
        return json_response(answer)

    async def _planned(self, outcome: Outcome, assumed: Assumed) -> answers.ApplyAnswer:
        forecasts = await asyncio.to_thread(self._forecasts, outcome, assumed)
        return replace(_answer(outcome, []), forecasts=forecasts, held=self._held(outcome))

    def _held(self, outcome: Outcome) -> dict[str, str]:
        held = {
            name: self._plane.rollouts.held(model, outcome.staged.get(name, {}))
            for name, model in outcome.rollouts.items()
        }
        return {name: words for name, words in held.items() if words}

    def _forecasts(self, outcome: Outcome, assumed: Assumed) -> dict[str, Forecast]:
        return {
            name: forecast(model.rollout, self._plane.traffic(model, assumed))
            for name, model in outcome.rollouts.items()
            if model.rollout is not None
        }

    async def _roll(self, ask: Ask) -> Response:
        request: questions.RollRequest = ask.body
        generation = await self._plane.publisher.roll(author=ask.who.name, reason=request.reason)
        return json_response(answers.RollAnswer(generation=generation))


def _absolute(directory: str) -> Path:
    path = Path(directory)
    if not path.is_absolute() or "\0" in directory:
        raise InvalidRequest("`directory` must be an absolute path on the gateway's machine")
    return path


def _answer(outcome: Outcome, workers: list[Acknowledgement]) -> answers.ApplyAnswer:
    return answers.ApplyAnswer(
        revision=outcome.revision,
        published=outcome.published,
        plan=outcome.plan,
        lines=outcome.plan.lines(),
        warnings=outcome.warnings,
        workers=workers,
    )
