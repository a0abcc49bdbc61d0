"""Tells the audit log, and whoever wants to hear of it, what happened in rollouts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from serving.config.schema import RolloutConfig
from serving.control.audit import AuditLog
from serving.control.rollouts.log import Told
from serving.rollout.standing import RolloutStanding
from serving.rollout.state import Event, RolloutState

__all__ = ["Announcer", "Tell", "nobody"]

_LOG = logging.getLogger("rollouts")

Tell = Callable[[Event, RolloutStanding, RolloutConfig], Awaitable[None]]
"""Told of every event once it has been carried out, perhaps twice after a crash. Raises OSError."""


async def nobody(event: Event, standing: RolloutStanding, config: RolloutConfig) -> None:
    """Tell nobody."""
    del event, standing, config


class Announcer:
    """One per control process.

    Args:
        audit: gets a line for each event, with its evidence.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self.tell: Tell = nobody

    async def unannounced(self, rollouts: Iterable[Told]) -> list[tuple[RolloutState, Event]]:
        """Events without a line in the audit log: a process has ended before it wrote that.

        Raises:
            OSError: the audit log cannot be read.
        """
        rollouts = list(rollouts)
        places = {(told.state.id, event.revision) for told in rollouts for event in told.events}
        missing = await asyncio.to_thread(self._audit.missing, places)
        return [
            (told.state, event)
            for told in rollouts
            for event in told.events
            if (told.state.id, event.revision) in missing
        ]

    async def announce(
        self,
        state: RolloutState,
        event: Event,
        standing: RolloutStanding,
        plan: RolloutConfig | None,
    ) -> None:
        """Tell of an event; a disk that takes nothing is told of in the log, and stops nothing.

        Args:
            state: right after it.
            event: what happened.
            standing: how the rollout stands.
            plan: its plan; None if nobody knows it any more.
        """
        told = "; ".join(f"{name}: {words}" for name, words in event.evidence.items())
        try:
            # First: the line is how a later process knows that this one has come so far.
            if plan is not None:
                await self.tell(event, standing, plan)
            await self._audit.record(
                who=event.who,
                verb=f"rollout {event.kind}",
                subject=state.id,
                result=f"{event.reason} ({told})" if told else event.reason,
                revision=event.revision,
            )
        except OSError as error:
            _LOG.critical("nobody is told of %s %s: %s", state.id, event.kind, error.strerror)
