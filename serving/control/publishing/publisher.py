"""The one place that changes what is served: start, plan, apply, load, unload, rollouts.

A verb compiles, decides and hands the outcome to `publication`, which writes it down and tells the
workers. Between verbs `upkeep` looks after the store.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from serving.clock import Clock
from serving.config.applied import Applied, to_follow
from serving.config.problems import raise_errors
from serving.config.schema import GatewayConfig, ModelConfig
from serving.config.snapshot import RolloutTraffic, Snapshot
from serving.control.fleet.rolls import Rolls
from serving.control.publishing.candidate_review import CandidateReview
from serving.control.publishing.compile import Compiled
from serving.control.publishing.journal import Action, Journal
from serving.control.publishing.origin import Origin, origin_of
from serving.control.publishing.outcome import Outcome, outcome_of, serve_the_same
from serving.control.publishing.plan import Plan, compare
from serving.control.publishing.publication import Publication
from serving.control.publishing.rollout_changes import LiveRollout, live_in, refused_changes
from serving.control.publishing.rollout_reach import out_of_reach
from serving.control.publishing.stock import Stock
from serving.control.publishing.upkeep import Upkeep
from serving.control.stores.store import Store
from serving.errors import (
    Conflict,
    InvalidConfig,
    ModelNotFound,
    ModelNotReady,
    ServingError,
    StoreUnavailable,
)
from serving.rollout.applied import same_traffic
from serving.rollout.forecast import Traffic

__all__ = ["Publisher"]

_BACK: Final = 100
"""Entries of the journal that are searched for a directory."""

Compile = Callable[[Path], Compiled]


class Publisher:
    """Holds the current snapshot; one verb at a time.

    Args:
        store: where workers read.
        journal: what was published before.
        compile_directory: makes a configuration of a directory; run in a thread.
        gateway: `gateway.yaml` as the running processes go by it.
        directory: where that is.
        rolls: has the engine follow a `gateway.yaml` that is applied; None: nobody follows.
        data: the data directory. Workers start from its `snapshot.json` when the store is away;
            staged files that nobody needs any more are removed from it.
        clock: wall-clock time of publications.
    """

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        compile_directory: Compile,
        gateway: GatewayConfig,
        data: Path,
        clock: Clock,
        log: logging.Logger,
        directory: str = "",
        rolls: Rolls | None = None,
    ) -> None:
        self._compile = compile_directory
        self.rolls = rolls
        self._clock = clock
        self._log = log
        self._one_at_a_time = asyncio.Lock()
        self._stock = Stock(data, journal, log)
        self._publication = Publication(
            store,
            journal,
            Applied(gateway=gateway, directory=directory),
            rolls=rolls,
            data=data,
            clock=clock,
            log=log,
        )
        self.upkeep = Upkeep(
            store,
            self._publication,
            self._stock,
            one_at_a_time=self._one_at_a_time,
            log=log,
        )
        self.candidates = CandidateReview(self._publication)
        """Whether those of a directory may answer."""

        self.live: Callable[[], Mapping[str, LiveRollout]] = lambda: live_in(self.current)
        """Rollouts that are under way, by model: what they are about must not change."""

        self.busiest: Callable[[ModelConfig], Traffic | None] = lambda _: None
        """The most traffic that a model has had lately; None: nobody has counted any."""

        self.started = False
        self.problem = ""
        """Why the configuration directory is not what is served, empty if it is."""

    @property
    def journal(self) -> Journal:
        """What was published."""
        return self._publication.journal

    @property
    def current(self) -> Snapshot | None:
        """What workers should serve; None before the first configuration."""
        return self._publication.current

    @property
    def running(self) -> Applied:
        """`gateway.yaml` as the processes go by it, with its secrets."""
        return self._publication.running

    def configured_in(self) -> Path:
        """The directory that what is served came from. Reads the disk. Raises OSError."""
        last = self.journal.last
        if last is not None and not last.directory:  # a load, an unload, or found in the store
            found = [one.directory for one in self.journal.newest(_BACK) if one.directory]
            return Path(found[-1] if found else self.running.directory)
        return Path(last.directory if last is not None else self.running.directory)

    @property
    def revision(self) -> int:
        """Of `current`, 0 before the first."""
        return self._publication.revision

    # --- start and upkeep -------------------------------------------------------------------

    async def start(self, directory: Path | None) -> None:
        """Wait for the store, restore, and publish the directory if it says something else.

        Args:
            directory: None to restore only (control was restarted under the same engine, and
                an edit that nobody has applied must not slip in).

        Raises:
            InvalidConfig: the store is unfit, or there is neither a good directory nor anything
                published before.
        """
        await self.upkeep.until_store_answers()
        async with self._one_at_a_time:
            await self._publication.adopt_if_ahead()
            await self._publication.adopt_from_disk()
            if directory is not None:
                await self._publish_directory(directory)
            if self.current is not None:
                await self._publication.hosts.announce(self.current)
            await self._publication.reconcile()
        self.started = True

    async def _publish_directory(self, directory: Path) -> None:
        try:
            compiled = await self._compiled(directory)
        except InvalidConfig as error:
            if self.current is None:
                raise
            self.problem = error.message
            self._log.error(
                "the configuration directory is not served, revision %d goes on: %s",
                self.revision,
                "; ".join([error.message, *map(str, error.problems)]),
            )
            return
        self.problem = ""
        for warning in compiled.warnings:
            self._log.warning("%s", warning)
        new = self._next(compiled, author="start")
        if not serve_the_same(self.current, new):
            origin = await self._origin(directory, compiled)
            await self._commit(
                new, "start", directory=str(directory), must_reach=False, origin=origin
            )

    # --- verbs ------------------------------------------------------------------------------

    async def plan(self, directory: Path) -> Outcome:
        """Say what applying the directory would change. Raises InvalidConfig."""
        compiled = await self.candidates.compare(await self._compiled(directory))
        beyond = [str(one) for one in out_of_reach(compiled, self.current, self.busiest)]
        compiled = replace(compiled, warnings=[*compiled.warnings, *beyond])
        new = self._next(compiled, author="")
        return outcome_of(
            compiled,
            self._plan(compiled, new, directory),
            revision=self.revision,
            published=False,
        )

    async def apply(
        self,
        directory: Path,
        *,
        author: str,
        expected_revision: int | None = None,
        expected_digest: str = "",
        reason: str = "",
    ) -> Outcome:
        """Publish the directory, unless it says what is served already.

        Raises:
            InvalidConfig: with every problem; nothing has changed.
            Conflict: `expected_revision` is not the current one, the files are not those of
                `expected_digest`, or another writer was faster.
            StoreUnavailable: the store does not answer; nothing has changed.
        """
        async with self._one_at_a_time:
            self.expect(expected_revision)
            compiled = await self.candidates.compare(await self._compiled(directory))
            self._expect_files(compiled, expected_digest)
            raise_errors(out_of_reach(compiled, self.current, self.busiest))
            new = self._next(compiled, author=author)
            plan = self._plan(compiled, new, directory)
            settings = to_follow(self.running, compiled.configuration.gateway, str(directory))
            published = settings is not None or not serve_the_same(self.current, new)
            if published:
                await self._commit(
                    new,
                    "apply",
                    reason=reason,
                    directory=str(directory),
                    must_reach=True,
                    settings=settings,
                    origin=await self._origin(directory, compiled),
                )
            self.problem = ""
            return outcome_of(compiled, plan, revision=self.revision, published=published)

    async def roll(self, *, author: str, reason: str = "") -> int:
        """Have every process replaced by one of the code on disk now; give the generation.

        Raises:
            ModelNotReady: control is starting.
            ServingError: the data directory cannot be written.
        """
        async with self._one_at_a_time:
            self.expect(None)
            if self.rolls is None:
                raise ModelNotReady("no engine follows this control process")
            after = self._publication.generation
            try:
                generation = await asyncio.to_thread(self.rolls.roll, self.running, after)
            except OSError as error:
                raise ServingError(
                    f"the data directory cannot be written ({error.strerror}); nothing is replaced"
                ) from error
            self._log.info("roll to generation %d, asked for by %s %s", generation, author, reason)
            return generation

    async def set_loaded(
        self, model: str, *, loaded: bool, author: str, reason: str = ""
    ) -> Outcome:
        """Load or unload a model; doing it twice changes nothing.

        Raises:
            ModelNotFound, ModelNotReady (nothing is published yet), Conflict, StoreUnavailable.
        """
        async with self._one_at_a_time:
            self.expect(None)
            current = self.current
            if current is None:
                raise ModelNotReady("no configuration has been published yet")
            if model not in current.models:
                raise ModelNotFound(f"Request for unknown model: '{model[:128]}' is not found")
            if (model not in current.unloaded) == loaded:
                return Outcome(plan=Plan(), revision=current.revision, published=False)
            unloaded = [name for name in current.unloaded if name != model]
            new = replace(
                current,
                revision=current.revision + 1,
                published_at=self._clock.wall(),
                author=author,
                unloaded=unloaded if loaded else [*unloaded, model],
            )
            await self._commit(new, "load" if loaded else "unload", reason=reason, must_reach=True)
            return Outcome(plan=compare(current, new), revision=new.revision, published=True)

    async def set_rollouts(
        self,
        wanted: Callable[[Snapshot], Mapping[str, RolloutTraffic]],
        *,
        author: str,
        reason: str,
    ) -> bool:
        """Put in place what rollouts make of traffic plans; nothing if it is there already.

        What was decided is written down by then, so it is journaled also while the store is away,
        and reaches the workers when that answers again.

        Args:
            wanted: of the current snapshot, by model; asked while no other verb can come between.
            author: whose doing it is.
            reason: why, for the history.

        Returns:
            Whether there is a new revision.

        Raises:
            Conflict: another writer was faster. ServingError: the journal cannot be written.
        """
        async with self._one_at_a_time:
            current = self.current
            if current is None or not self.started:
                return False
            rollouts = dict(wanted(current))
            if same_traffic(current.rollouts, rollouts):
                return False
            new = replace(
                current,
                revision=current.revision + 1,
                published_at=self._clock.wall(),
                author=author,
                rollouts=rollouts,
            )
            last = self.journal.last
            directory = last.directory if last is not None else ""
            try:
                await self._commit(
                    new, "rollout", reason=reason, directory=directory, must_reach=True
                )
            except StoreUnavailable:
                await self._commit(
                    new, "rollout", reason=reason, directory=directory, must_reach=False
                )
            return True

    async def _compiled(self, directory: Path) -> Compiled:
        async with self._stock.staging:
            compiled = await asyncio.to_thread(self._compile, directory)
        await self.candidates.refuse_unseen(compiled)
        raise_errors(refused_changes(compiled, self.current, self.live()))
        return compiled

    async def _origin(self, directory: Path, compiled: Compiled) -> Origin | None:
        if compiled.loaded is None:
            return None
        return await asyncio.to_thread(origin_of, directory, compiled.loaded.digest)

    def _expect_files(self, compiled: Compiled, digest: str) -> None:
        if digest and (compiled.loaded is None or compiled.loaded.digest != digest):
            raise Conflict("the files have changed since they were looked at", self.revision)

    def expect(self, revision: int | None) -> None:
        """Raise Conflict unless `revision` is current (None: any), ModelNotReady before start."""
        if not self.started:
            raise ModelNotReady("control is starting: it has not reached the store yet")
        if revision is not None and revision != self.revision:
            raise Conflict(
                f"expected_revision is {revision}, but revision {self.revision} is served; "
                "look at the plan again",
                self.revision,
            )

    def _next(self, compiled: Compiled, *, author: str) -> Snapshot:
        return compiled.snapshot(
            revision=self.revision + 1,
            author=author,
            at=self._clock.wall(),
            before=self.current,
        )

    def _plan(self, compiled: Compiled, new: Snapshot, directory: Path) -> Plan:
        running = self.running
        return compare(
            self.current,
            new,
            (running.gateway, compiled.configuration.gateway),
            (running.directory, str(directory)),
        )

    async def _commit(
        self,
        snapshot: Snapshot,
        action: Action,
        *,
        must_reach: bool,
        reason: str = "",
        directory: str = "",
        settings: Applied | None = None,
        origin: Origin | None = None,
    ) -> None:
        await self._publication.commit(
            snapshot,
            action,
            reason=reason,
            directory=directory,
            must_reach=must_reach,
            settings=settings,
            origin=origin,
        )
        self._stock.may_hold_leftovers = True
