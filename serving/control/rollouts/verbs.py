"""What people do to a rollout: promote, pause, resume, approve, abort, retry."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec.structs import replace

from serving.control.rollouts.rollouts import Rollouts
from serving.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    ModelNotReady,
    NotFound,
    StoreUnavailable,
)
from serving.rollout.baking import Look
from serving.rollout.decide import event_of, forward, to_the_end
from serving.rollout.standing import RolloutStanding
from serving.rollout.state import Event, IllegalEvent, Kind, RolloutState

__all__ = ["RolloutVerbs", "Verb"]

Verb = Literal["promote", "pause", "resume", "approve", "abort", "retry"]

_KINDS: Final[Mapping[Verb, Kind]] = {
    "pause": "paused",
    "resume": "resumed",
    "approve": "approved",
    "abort": "aborting",
}
_WITHOUT_STORE: Final = ("pause", "abort")
"""What takes traffic back, or leaves it where it is, does not wait for the store."""


class RolloutVerbs:
    """One caller at a time, between two looks of the controller."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    async def act(
        self,
        model: str,
        verb: Verb,
        *,
        who: str,
        reason: str = "",
        expected_revision: int | None = None,
        full: bool = False,
    ) -> RolloutStanding:
        """Do it, and answer with how the rollout stands then.

        Args:
            model: whose last rollout is meant.
            verb: what to do.
            who: a token's name.
            reason: for the history; `retry` needs one.
            expected_revision: refuse if the rollout has moved on since.
            full: of `promote`: everything to the new version, past all steps.

        Raises:
            NotFound: there is no such model, or it never had a rollout.
            Conflict: it has moved on, or cannot be done in its phase; with the newer standing.
            InvalidRequest: a reason is missing, or there is nothing to retry.
            ModelNotReady: control is starting, or the new version cannot answer everywhere.
            StoreUnavailable: it would move traffic on while nobody can be reached.
        """
        rollouts = self._rollouts
        async with rollouts.one_at_a_time:
            await rollouts.prepare()
            state = self._expected(model, expected_revision)
            if verb == "retry":
                await self._retry(state, who=who, reason=reason)
            else:
                await self._move(state, verb, who=who, reason=reason, full=full)
            await rollouts.carry_out()
            return self._standing(model)

    def _expected(self, model: str, revision: int | None) -> RolloutState:
        snapshot, told = self._rollouts.snapshot, self._rollouts.log.last(model)
        if told is None:
            if snapshot is not None and model not in snapshot.models:
                raise ModelNotFound(f"Request for unknown model: '{model[:128]}' is not found")
            raise NotFound(f"model '{model[:128]}' has had no rollout")
        if revision is not None and revision != told.state.revision:
            raise self._conflict(
                model, f"expected_revision is {revision}, but it is {told.state.revision} by now"
            )
        return told.state

    def _conflict(self, model: str, message: str) -> Conflict:
        standing = self._standing(model)
        return Conflict(message, standing.revision, newer=standing)

    def _standing(self, model: str) -> RolloutStanding:
        standing = self._rollouts.standing(model)
        assert standing is not None
        return standing

    async def _move(
        self, state: RolloutState, verb: Verb, *, who: str, reason: str, full: bool
    ) -> None:
        look = self._rollouts.view_of(state)
        if look is None or not state.is_live:
            raise self._conflict(
                state.model, f"{state.id} is {state.phase}; there is nothing to {verb}"
            )
        if verb not in _WITHOUT_STORE and not look.facts.store_up:
            raise StoreUnavailable(f"the store does not answer, so nobody could be told to {verb}")
        if verb == "promote" and look.facts.not_ready:
            raise ModelNotReady(f"it cannot answer everywhere: {look.facts.not_ready}")
        try:
            await self._rollouts.happen(state, _event(look, verb, who, reason, full=full))
        except IllegalEvent as error:
            raise self._conflict(state.model, f"{state.id}: {error}") from error
        except Conflict as error:
            raise self._conflict(state.model, error.message) from error

    async def _retry(self, state: RolloutState, *, who: str, reason: str) -> None:
        if not reason.strip():
            raise InvalidRequest("`reason` says why it should be tried again")
        if state.is_live:
            raise self._conflict(state.model, f"{state.id} is {state.phase}; end it first")
        snapshot = self._rollouts.snapshot
        config = snapshot.models.get(state.model) if snapshot is not None else None
        if (
            snapshot is None
            or config is None
            or not await self._rollouts.begin(config, snapshot, who=who, reason=reason)
        ):
            raise InvalidRequest(
                f"the file asks for no rollout of '{state.model}' that is not done; apply one"
            )


def _event(look: Look, verb: Verb, who: str, reason: str, *, full: bool) -> Event:
    words = reason or f"{who} asks for it"
    if verb == "promote":
        made = (to_the_end if full else forward)(look, who=who, reason=words)
        return replace(made, cause="person")
    made = event_of(look, _KINDS[verb], who=who, reason=words, cause="person")
    if verb == "abort":
        return replace(made, weight=0.0, shadow=0.0)
    return replace(made, asks=verb == "resume" and look.step.approve is not None)
