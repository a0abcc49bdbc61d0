"""Rollouts: how they stand, what happened, and what people do to them."""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.responses import Response

from serving.control.admin import answers, questions
from serving.control.admin.operations import Ask, Need, Operation, json_response
from serving.control.plane import ControlPlane
from serving.control.rollouts.verbs import Verb
from serving.errors import ModelNotFound, NotFound
from serving.rollout.standing import RolloutStanding

__all__ = ["RolloutRoutes"]

_VERBS: Final[dict[Verb, tuple[Need, str]]] = {
    "promote": (
        "admin",
        "Go to the next step now; `full`: everything to the new version, past all steps.",
    ),
    "pause": ("operator", "Hold it where it is. A proven breach still aborts it."),
    "resume": ("operator", "Let a paused rollout go on; what it was paused for pauses it no more."),
    "approve": ("operator", "Say yes to the step that asks."),
    "abort": ("operator", "Give all traffic back to production."),
    "retry": ("admin", "Begin anew what was stopped, in spite of block and cooldown; say why."),
}


class RolloutRoutes:
    """Endpoints under `/api/v1/rollouts`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def operations(self) -> list[Operation]:
        """What is routed."""
        return [
            Operation(
                method="GET",
                path="/api/v1/rollouts",
                need="read",
                summary="The last rollout of each model, and how it stands.",
                answer=self._list,
                returns=list[RolloutStanding],
            ),
            Operation(
                method="GET",
                path="/api/v1/rollouts/{model}",
                need="read",
                summary="How a rollout stands: each rule's evidence, and what the step lacks.",
                answer=self._one,
                returns=RolloutStanding,
            ),
            Operation(
                method="GET",
                path="/api/v1/rollouts/{model}/history",
                need="read",
                summary="Every rollout of a model, newest first: who, when, why, on what evidence.",
                answer=self._history,
                returns=answers.RolloutHistory,
            ),
            *(
                Operation(
                    method="POST",
                    path=f"/api/v1/rollouts/{{model}}/{verb}",
                    need=need,
                    summary=summary,
                    answer=self._verb(verb),
                    body=questions.RolloutRequest,
                    returns=RolloutStanding,
                    audited=True,
                    verb=f"rollout {verb}",
                )
                for verb, (need, summary) in _VERBS.items()
            ),
        ]

    async def _list(self, ask: Ask) -> Response:
        del ask
        return json_response(self._plane.rollouts.standings())

    async def _one(self, ask: Ask) -> Response:
        model = ask.path["model"]
        standing = self._plane.rollouts.standing(model)
        if standing is None:
            raise self._unknown(model)
        return json_response(standing)

    async def _history(self, ask: Ask) -> Response:
        model = ask.path["model"]
        told = self._plane.rollouts.log.of(model)
        if not told and not self._is_configured(model):
            raise self._unknown(model)
        return json_response(
            answers.RolloutHistory(
                rollouts=[
                    answers.RolloutEvents(id=one.state.id, events=list(one.events))
                    for one in reversed(told)
                ]
            )
        )

    def _is_configured(self, model: str) -> bool:
        current = self._plane.publisher.current
        return current is not None and model in current.models

    def _unknown(self, model: str) -> NotFound:
        if self._is_configured(model):
            waiting = self._plane.rollouts.refused.get(model, "")
            return NotFound(f"model '{model[:128]}' has had no rollout{waiting and f': {waiting}'}")
        return ModelNotFound(f"Request for unknown model: '{model[:128]}' is not found")

    def _verb(self, verb: Verb) -> Callable[[Ask], Awaitable[Response]]:
        async def answer(ask: Ask) -> Response:
            request: questions.RolloutRequest = ask.body
            standing = await self._plane.rollout_verbs.act(
                ask.path["model"],
                verb,
                who=ask.who.name,
                reason=request.reason,
                expected_revision=request.expected_revision,
                full=request.full,
            )
            return json_response(standing)

        return answer
