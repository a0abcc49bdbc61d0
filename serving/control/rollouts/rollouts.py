"""Moves rollouts: looks at the evidence, has `serving.rollout.decide` decide, and carries it out.

    evidence, reports → decide → event on the disk → store → traffic published → audit, notices

What happened is what stands on the disk. Everything after it can be done twice: a control process
that starts again publishes what the events say, and tells the audit log and others of the last
event if that had not come to it.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec.structs import replace

from serving.clock import Clock
from serving.config.schema import ModelConfig, RolloutConfig
from serving.config.snapshot import RolloutTraffic, Snapshot
from serving.control.ballast import Ballast
from serving.control.publishing.publisher import Publisher
from serving.control.rollouts.announcer import Announcer, Tell
from serving.control.rollouts.facts import Heard, facts_of, is_everywhere
from serving.control.rollouts.log import RolloutLog
from serving.control.rollouts.observer import Observer, Seen
from serving.control.stores.store import Store
from serving.errors import ModelNotReady, SluiceError, StoreUnavailable
from serving.quarantine.decision import Quarantined
from serving.rollout.applied import Staged, alike, beginning, number_of, placed, superseded
from serving.rollout.baking import Look
from serving.rollout.decide import CONTROLLER, decide, event_of
from serving.rollout.describe import ended_standing, standing_of
from serving.rollout.freezing import bins, latency_bounds
from serving.rollout.standing import RolloutStanding
from serving.rollout.state import Event, IllegalEvent, RolloutState

__all__ = ["Rollouts"]

_LOOK_SECONDS: Final = 0.25
_RECONCILE_SECONDS: Final = 5.0
_LOG = logging.getLogger("rollouts")


class Rollouts:
    """One per control process. Whoever changes something holds `one_at_a_time`.

    Args:
        log: what has happened.
        publisher: puts traffic in place.
        store: where workers report.
        observer: of what they count, and what that proves.
        quarantined: versions that crashed workers.
        announcer: told of every event.
        ballast: given up where a full disk would keep traffic at a version that is being aborted.
        clock: the time.
    """

    def __init__(
        self,
        log: RolloutLog,
        *,
        publisher: Publisher,
        store: Store,
        observer: Observer,
        quarantined: Callable[[], list[Quarantined]],
        announcer: Announcer,
        ballast: Ballast,
        clock: Clock,
    ) -> None:
        self.log = log
        self._ballast = ballast
        self._announcer = announcer
        self.one_at_a_time = asyncio.Lock()
        self._publisher = publisher
        self._store = store
        self._observer = observer
        self._quarantined = quarantined
        self._clock = clock
        self._began = clock.wall()
        self._restored = False
        self._reconcile_at = 0.0
        self._heard = Heard()
        self._seen: dict[str, Seen] = {}
        self._grew: dict[str, tuple[int, float]] = {}
        self._in_place: dict[str, tuple[RolloutTraffic | None, int]] = {}
        self._plans: dict[str, RolloutConfig] = {}
        self._untold: list[tuple[RolloutState, Event]] = []
        self._blind: set[str] = set()
        self._problem = ""
        self.refused: dict[str, str] = {}
        """By model: why the rollout that its file asks for does not begin."""

    @property
    def tell(self) -> Tell:
        """Who hears of every event, beside the audit log."""
        return self._announcer.tell

    @tell.setter
    def tell(self, tell: Tell) -> None:
        self._announcer.tell = tell

    # --- upkeep -------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Look for ever; an error costs a look, and is told once."""
        while True:
            problem = ""
            try:
                await self.look()
            except OSError as error:
                problem = f"the data directory cannot be used: {error.strerror}"
            except SluiceError as error:
                problem = error.message
            except Exception as error:  # noqa: BLE001 - the others must go on
                problem = f"an error of the gateway's: {error!r}"
                if problem != self._problem:
                    _LOG.exception("a rollout cannot be moved")
            if problem and problem != self._problem:
                _LOG.error("rollouts stay as they are: %s", problem)
            self._problem = problem
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Move every rollout that something follows for, and put it in place.

        Raises:
            OSError, SluiceError: one could not be moved; the others were.
        """
        async with self.one_at_a_time:
            snapshot = self.snapshot
            if snapshot is None:
                return
            await self._restore()
            for name, config in snapshot.models.items():
                if config.rollout is not None:
                    self._plans[name] = config.rollout
            if not (self.log.models or self._plans):
                return
            await self._hear()
            if self._untold:
                await self.carry_out()  # what an earlier process has left
            failed: Exception | None = None
            for model in sorted({*snapshot.models, *self.log.models}):
                try:
                    await self._move(model, snapshot)
                except (OSError, SluiceError, IllegalEvent) as error:
                    failed = error
            await self.carry_out()
            if failed is not None:
                raise failed

    async def prepare(self) -> None:
        """Be ready for a verb. Raises ModelNotReady: control is starting. OSError."""
        if self.snapshot is None:
            raise ModelNotReady("control is starting: it has not reached the store yet")
        await self._restore()
        await self._hear()

    async def _restore(self) -> None:
        """Read the disk once; compare it with the store now and then. Raises OSError."""
        if not self._restored:
            await self.log.load()
        if (now := self._clock.monotonic()) >= self._reconcile_at:
            # It is tried again; nobody needs the store to know what has happened.
            with suppress(StoreUnavailable):
                await self.log.reconcile()
            self._reconcile_at = now + _RECONCILE_SECONDS
            await self._ballast.hold()
        if not self._restored:
            last = [told for model in self.log.models if (told := self.log.last(model))]
            self._untold += await self._announcer.unannounced(last)
            self._restored = True

    async def _hear(self) -> None:
        try:
            self._heard = Heard(reports=await self._store.workers(), store_up=True)
        except StoreUnavailable:
            self._heard = Heard(reports=self._heard.reports, store_up=False)

    # --- one model ----------------------------------------------------------------------------

    async def _move(self, model: str, snapshot: Snapshot) -> None:
        config, staged = snapshot.models.get(model), snapshot.staged.get(model, {})
        self._note_in_place(model, snapshot)
        told = self.log.last(model)
        if told is not None and (over := superseded(config, staged, told.state)):
            gone = Event(
                revision=told.state.revision + 1,
                at=self._clock.wall(),
                kind="superseded",
                who=snapshot.author,
                reason=over.reason,
                step=told.state.step,
                cause="file" if over.file else "",
            )
            await self.happen(told.state, gone)
            told = self.log.last(model)
        if config is None:
            return
        if told is None or not told.state.is_live:
            await self.begin(config, snapshot)
        else:
            await self._look_at(told.state, config, snapshot)

    async def begin(
        self, config: ModelConfig, snapshot: Snapshot, *, who: str = "", reason: str = ""
    ) -> bool:
        """Begin the rollout that the file asks for, if it asks for one; a person may insist.

        Returns:
            Whether one has begun; `refused` says why not, if there is more to say.

        Raises:
            ServingError: the disk does not take it.
        """
        model, told = config.model, self.log.of(config.model)
        put = snapshot.rollouts.get(model)
        ids = [one.state.id for one in told] + ([put.id] if put is not None else [])
        number = 1 + max(map(number_of, ids), default=0)
        wanted = beginning(
            config,
            snapshot.staged.get(model, {}),
            [one.state for one in told],
            self._clock.wall(),
            number=number,
            retried=bool(who),
        )
        self.refused.pop(model, None)
        if wanted is None or model in snapshot.unloaded:
            return False
        if wanted.refused:
            self.refused[model] = wanted.refused
            return False
        arms, state = wanted.arms, RolloutState(id=f"{model}-r{number}", model=model)
        started = Event(
            revision=1,
            at=self._clock.wall(),
            kind="started",
            who=who or snapshot.author,
            reason=reason or "the file asks for it",
            evidence={
                "canary": f"{arms.canary} {arms.canary_sha256[:12]}",
                "production": f"{arms.production} {arms.production_sha256[:12]}",
            },
            arms=arms,
            bins=bins(config, state, snapshot.references),
        )
        await self.happen(state, started)
        return True

    def held(self, config: ModelConfig, staged: Staged) -> str:
        """Why the rollout that a file asks for would not begin by itself; empty: it would, or none.

        Of what has been read of the disk: control that is starting holds nothing back.
        """
        past = [one.state for one in self.log.of(config.model)]
        wanted = beginning(config, staged, past, self._clock.wall(), number=1)
        return "" if wanted is None else wanted.refused

    async def _look_at(self, state: RolloutState, config: ModelConfig, snapshot: Snapshot) -> None:
        assert config.rollout is not None
        await self._see(state, config)
        seen, look = self._seen[state.id], self.view(state, config.rollout, snapshot)
        bounds = latency_bounds(config, state, seen.production_seconds)
        if bounds and state.phase in ("progressing", "paused", "awaiting_approval"):
            reason = f"latency of {len(seen.production_seconds)} requests of production"
            frozen = event_of(look, "frozen", who=CONTROLLER, reason=reason)
            told = {rule: ", ".join(f"{at:.6g} s" for at in ats) for rule, ats in bounds.items()}
            frozen = replace(frozen, latency_bounds=bounds, evidence=told)
            state = await self.happen(state, frozen)
            look = self.view(state, config.rollout, snapshot)
        if following := decide(look):
            await self.happen(state, following)

    async def _see(self, state: RolloutState, config: ModelConfig) -> None:
        self._seen.setdefault(state.id, Seen())
        if state.phase == "pending":
            return
        try:
            put, _ = self._in_place.get(state.model, (None, 0))
            seen = await self._observer.look(state, config, put)
        except OSError as error:
            # What was seen last still holds, and a quarantine still counts.
            if state.id not in self._blind:
                _LOG.error("%s: no evidence can be written: %s", state.id, error.strerror)
            self._blind.add(state.id)
            return
        self._blind.discard(state.id)
        self._seen[state.id] = seen
        amount = seen.samples + seen.production_samples + seen.copies
        if amount != self._grew.get(state.id, (0, 0.0))[0]:
            self._grew[state.id] = (amount, self._clock.wall())

    def view(self, state: RolloutState, plan: RolloutConfig, snapshot: Snapshot) -> Look:
        """One look at a rollout, with what was seen and heard last."""
        seen, now = self._seen.get(state.id, Seen()), self._clock.wall()
        return Look(
            config=plan,
            state=state,
            standings=seen.standings,
            facts=facts_of(
                state,
                seen,
                self._heard,
                quarantined=self._quarantined(),
                last_data=self._grew.get(state.id, (0, self._began))[1],
                acknowledged=self._is_acknowledged(state, snapshot),
                now=now,
            ),
        )

    def view_of(self, state: RolloutState) -> Look | None:
        """The same of what is published; None where that has no plan for it."""
        snapshot = self.snapshot
        config = snapshot.models.get(state.model) if snapshot is not None else None
        if snapshot is None or config is None or config.rollout is None:
            return None
        return self.view(state, config.rollout, snapshot)

    def _note_in_place(self, model: str, snapshot: Snapshot) -> None:
        """Remember since which revision workers are told to do what they are told now."""
        put = snapshot.rollouts.get(model)
        if model not in self._in_place or self._in_place[model][0] != put:
            self._in_place[model] = (put, snapshot.revision)

    def _is_acknowledged(self, state: RolloutState, snapshot: Snapshot) -> bool:
        put, since = self._in_place.get(state.model, (None, snapshot.revision))
        now = self._clock.wall()
        wanted = placed(state, snapshot.models.get(state.model), now)
        return alike(wanted, put) and is_everywhere(self._heard, since, now)

    # --- carrying it out ----------------------------------------------------------------------

    async def happen(self, state: RolloutState, event: Event) -> RolloutState:
        """Write an event down; from then on it has happened. `carry_out` does the rest.

        Raises:
            IllegalEvent: it cannot follow. Conflict: another control was faster.
            ServingError: the disk does not take it.
        """
        if event.kind == "started":
            new = await self.log.begin(state.id, state.model, event)
        elif event.kind == "aborting":
            new = await self._ballast.make_room(partial(self.log.append, state.id, event))
        else:
            new = await self.log.append(state.id, event)
        self._untold.append((new, event))
        level = logging.WARNING if event.kind in ("aborting", "paused") else logging.INFO
        _LOG.log(level, "%s: %s by %s: %s", state.id, event.kind, event.who, event.reason)
        return new

    async def carry_out(self) -> None:
        """Have workers do what the events say, then tell of those that are new.

        Raises:
            Conflict, ServingError: it could not be published; the next look tries again.
        """
        said = [f"{state.id} {event.kind}: {event.reason}" for state, event in self._untold]
        author = self._untold[-1][1].who if self._untold else CONTROLLER
        try:
            publish = partial(self._publisher.set_rollouts, self._wanted)
            why = "; ".join(said) or "as the events say"
            await self._ballast.make_room(partial(publish, author=author, reason=why))
        finally:
            untold, self._untold = self._untold, []
            for state, event in untold:
                await self._announce(state, event)

    def _wanted(self, snapshot: Snapshot) -> dict[str, RolloutTraffic]:
        wanted, now = {}, self._clock.wall()
        for model, config in snapshot.models.items():
            told = self.log.last(model)
            if told is None:
                continue
            put = placed(told.state, config, now)
            if superseded(config, snapshot.staged.get(model, {}), told.state):
                put = snapshot.rollouts.get(model)  # a file came in between; the next look sees it
            if put is not None:
                wanted[model] = put
        return wanted

    async def _announce(self, state: RolloutState, event: Event) -> None:
        standing = self.standing(state.model) or ended_standing(state)
        await self._announcer.announce(state, event, standing, self._plans.get(state.model))
        if not state.is_live:
            with suppress(OSError):  # what it had is in its log already
                await self._observer.close(state.id)

    # --- what is shown ------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot | None:
        """What is published; None before the start."""
        return self._publisher.current if self._publisher.started else None

    def standings(self) -> list[RolloutStanding]:
        """How each model's last rollout stands, of those that had one."""
        found = [self.standing(model) for model in self.log.models]
        return [standing for standing in found if standing is not None]

    def standing(self, model: str) -> RolloutStanding | None:
        """How a model's last rollout stands; None if it never had one."""
        told, snapshot = self.log.last(model), self.snapshot
        if told is None or snapshot is None:
            return None
        refused, plan = self.refused.get(model, ""), self._plans.get(model)
        if plan is None or plan.canary != told.state.canary:
            return ended_standing(told.state, waiting_for=refused)
        seen = self._seen.get(told.state.id, Seen())
        standing = standing_of(
            self.view(told.state, plan, snapshot), excluded=seen.excluded, lost=seen.lost
        )
        standing.waiting_for += [refused] if refused else []
        return standing
