"""Asks for training, and sees that it is heard: decides by `serving.drift.retraining`, sends.

    verdict → decide → written to the disk → audit → sent, again and again → audit

What comes back is nobody's production model: see `serving.control.publishing.candidates`.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from serving.clock import Clock
from serving.config.schema import RetrainConfig
from serving.config.snapshot import Snapshot
from serving.control.audit import AuditLog
from serving.control.monitoring.events import Place
from serving.control.monitoring.harm_state import Harm
from serving.control.outbound import DeliveryFailed
from serving.control.training.deliveries import Courier
from serving.control.training.event import data_of, event_of
from serving.control.training.state import (
    Kept,
    Request,
    after_delivery,
    after_end,
    after_failure,
    overdue,
    read_kept,
    write_kept,
)
from serving.drift.options import retrain_policy
from serving.drift.retraining import decide, resumed
from serving.drift.verdict import Verdict
from serving.errors import Conflict, InvalidRequest, ModelNotFound, ServingError
from serving.tasks import end
from serving.traffic.rolled import effective

__all__ = ["RetrainingDesk", "RetrainingStatus"]

_LOOK_SECONDS: Final = 1.0
_WHO: Final = "monitoring"
_LOG = logging.getLogger("retraining")


class RetrainingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model stands. Times are seconds since 1970."""

    model: str
    asks: str
    """Who is asked: webhook, airflow, command, or nobody."""
    words: str
    """What was decided last, and why."""
    harm_since: float | None = None
    in_flight: bool = False
    asked: list[float] = []
    """When training was asked for because of harm or by a person, in the last 30 days."""
    budget: int = 0
    failures: int = 0
    """Trainings in a row that improved nothing."""
    person: str = ""
    """Why a person has to look; empty if nobody has to."""
    request: Request | None = None
    """The last one."""


class RetrainingDesk:
    """One per control process.

    Args:
        folder: where requests are remembered.
        current: what is published; None before the first time.
        verdicts: the last ones, by model, version and role.
        harm: by version, how a model's losses stand.
        courier: delivers.
        audit: told of every request, delivery, failure and refusal.
        directory: of the configuration that is served. Reads files.
        source: URI of the admin port.
        log: folder of the prediction log; empty if there is none.
        clock: the time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        current: Callable[[], Snapshot | None],
        verdicts: Callable[[], Mapping[Place, Verdict]],
        harm: Callable[[str], Mapping[str, Harm]],
        courier: Courier,
        audit: AuditLog,
        directory: Callable[[], Path],
        source: Callable[[], str],
        log: Callable[[], str],
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._current = current
        self._verdicts = verdicts
        self._harm = harm
        self._courier = courier
        self._audit = audit
        self._directory = directory
        self._source = source
        self._prediction_log = log
        self._clock = clock
        self._kept: dict[str, Kept] = {}
        self._words: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        """Requests by model and what became of them, since this process started."""

    async def keep(self) -> None:
        """Look at every model once a second, for ever; an error costs a turn."""
        try:
            while True:
                for model in self._watched():
                    await self._turn(model)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            await end(*self._sending.values())

    async def _turn(self, model: str) -> None:
        problem = ""
        try:
            await self.look(model)
        except ServingError as error:
            problem = error.message
        except OSError as error:
            problem = f"the data directory cannot be used: {error.strerror}"
        except Exception:  # noqa: BLE001 - a request is not worth the admin port
            _LOG.exception("retraining of %s cannot be decided", model)
            problem = "control's log says why"
        if problem and self._said.get(model) != problem:
            _LOG.error("%s: no training is asked for: %s", model, problem)
        self._said[model] = problem

    async def look(self, model: str) -> None:
        """Decide about one model now, and start sending what has to be sent.

        Raises:
            OSError: the disk does not keep it; nothing has happened. ServingError: what is
            remembered cannot be read.
        """
        retrain = self._watched().get(model)
        if retrain is None or _asks(retrain) == "nobody":
            return
        now = self._clock.wall()
        async with self._one_at_a_time:
            kept = await self._read(model)
            if overdue(kept, float(retrain.ends_within), now):
                words = f"no end was reported within {float(retrain.ends_within):.0f} s"
                await self._write(model, after_end(kept, improved=False))
                await self._note("retraining ended", model, f"not improved: {words}")
                kept = self._kept[model]
            await self._decide(model, retrain, kept, now)
            request = self._kept[model].request
            if request is not None and not request.noted:
                await self._note_request(model, request)
        self._send(model, retrain, now)

    async def _decide(self, model: str, retrain: RetrainConfig, kept: Kept, now: float) -> None:
        _, verdict = self._verdict(model)
        if verdict is None:
            return
        state, decision = decide(kept.state, verdict, retrain_policy(retrain), now)
        request, person = kept.request, decision.words if decision.person else ""
        if decision.ask:
            request = self._request(model, who=_WHO, verdict=verdict, words=decision.words, now=now)
        told = bool(person) and not kept.person
        # A person once told stays told until there is nothing to look at, whatever the numbers say.
        new = Kept(
            state=state, request=request, person=kept.person if person and not told else person
        )
        if new != kept:
            await self._write(model, new)
        self._words[model] = decision.words
        if told:
            self.counts[model, "refused"] += 1
            _LOG.error("%s: a person is asked: %s", model, person)
            await self._note("retraining refused", model, f"a person is asked: {person}")

    def _request(
        self, model: str, *, who: str, verdict: Verdict | None, words: str, now: float
    ) -> Request:
        version, _ = self._verdict(model)
        identifier = str(uuid.uuid4())
        snapshot, source = self._current(), self._source()
        staged = snapshot.staged.get(model, {}).get(version) if snapshot is not None else None
        data = data_of(
            model,
            version,
            digest=staged.sha256 if staged is not None else "",
            asked_by=who,
            verdict=verdict,
            words=words,
            harm=self._harm(model).get(version),
            log=self._prediction_log(),
            source=source,
            at=now,
        )
        event = event_of(identifier, source=source, at=now, data=data)
        return Request(id=identifier, at=now, asked_by=who, words=words, event=event.decode())

    async def _note_request(self, model: str, request: Request) -> None:
        self.counts[model, "asked"] += 1
        _LOG.warning("%s: %s (%s)", model, request.words, request.id)
        await self._note(
            "retraining asked", model, f"{request.id}: {request.words}", who=request.asked_by
        )
        kept = self._kept[model]
        await self._write(model, replace(kept, request=replace(request, noted=True)))

    # --- sending ------------------------------------------------------------------------------

    def _send(self, model: str, retrain: RetrainConfig, now: float) -> None:
        request = self._kept[model].request
        running = self._sending.get(model)
        if request is None or request.stage != "undelivered" or now < request.next_attempt:
            return
        if running is None or running.done():
            self._sending[model] = asyncio.get_running_loop().create_task(
                self._attempt(model, retrain, request)
            )

    async def _attempt(self, model: str, retrain: RetrainConfig, request: Request) -> None:
        delivered = False
        try:
            directory = await asyncio.to_thread(self._directory)
            said = await self._courier.deliver(
                retrain, directory, request.id, request.event.encode()
            )
            delivered = True
        except DeliveryFailed as error:
            said = str(error)
        except Exception:  # noqa: BLE001 - it is tried again
            _LOG.exception("%s: delivery of %s failed", model, request.id)
            said = "an error of the gateway's; control's log says which"
        try:
            await self._settle(model, request, said, delivered=delivered)
        except (OSError, ServingError) as error:
            # It stays undelivered on the disk, and is sent again with the same id.
            _LOG.error("%s: what became of %s is not kept: %s", model, request.id, error)

    async def _settle(self, model: str, request: Request, said: str, *, delivered: bool) -> None:
        now = self._clock.wall()
        async with self._one_at_a_time:
            kept = await self._read(model)
            settle = after_delivery if delivered else after_failure
            new = settle(kept, request.id, said, now)
            if new == kept:  # it was ended meanwhile
                return
            assert new.request is not None
            given_up = new.request.stage == "given_up"
            what = "delivered" if delivered else "given_up" if given_up else "failed"
            self.counts[model, "delivered" if delivered else "failed"] += 1
            if given_up:
                self.counts[model, what] += 1
            # The same failure every five minutes is told once.
            if delivered or given_up or kept.request is None or kept.request.said != said:
                level = logging.INFO if delivered else logging.ERROR
                _LOG.log(level, "%s: request %s %s: %s", model, request.id, what, said)
                verb = f"retraining {what.replace('_', ' ')}"
                await self._note(verb, model, f"{request.id}: {said}")
            # Last: killed before this, it is sent and audited once more, and never left unaudited.
            await self._write(model, new)

    # --- verbs --------------------------------------------------------------------------------

    async def status(self, model: str) -> RetrainingStatus:
        """Where a model stands. Raises ModelNotFound, InvalidRequest: it has no `retrain`."""
        retrain = self._require(model)
        async with self._one_at_a_time:
            kept = await self._read(model)
        words = self._words.get(model, "nothing is known yet")
        asks = _asks(retrain)
        return RetrainingStatus(
            model=model,
            asks=asks,
            words="`monitoring.retrain` names nobody to ask" if asks == "nobody" else words,
            harm_since=kept.state.harm_since,
            in_flight=kept.state.in_flight,
            asked=list(kept.state.asked),
            budget=retrain.budget,
            failures=kept.state.failures,
            person=kept.person,
            request=kept.request,
        )

    async def ask(self, model: str, *, who: str, reason: str) -> RetrainingStatus:
        """Ask for training because a person wants it; it counts against the budget.

        Raises:
            ModelNotFound, InvalidRequest: nobody can be asked. Conflict: one is running.
        """
        retrain = self._require(model)
        if _asks(retrain) == "nobody":
            raise InvalidRequest(
                f"`monitoring.retrain` of '{model}' names nobody to ask: "
                "set webhook, airflow or command"
            )
        now = self._clock.wall()
        async with self._one_at_a_time:
            kept = await self._read(model)
            if kept.state.in_flight:
                raise Conflict(
                    f"a training of '{model}' is running; end it with `sluice retraining ended`",
                    self._revision(),
                )
            words = reason or "a person asks for a training"
            request = self._request(model, who=who, verdict=None, words=words, now=now)
            state = replace(kept.state, asked=(*kept.state.asked, now), in_flight=True)
            await self._write(model, replace(kept, state=state, request=request))
            await self._note_request(model, request)
        self._send(model, retrain, now)
        return await self.status(model)

    async def ended(self, model: str, *, improved: bool) -> RetrainingStatus:
        """A training is over. Raises ModelNotFound, InvalidRequest, Conflict: none is running."""
        self._require(model)
        async with self._one_at_a_time:
            kept = await self._read(model)
            if not kept.state.in_flight:
                raise Conflict(f"no training of '{model}' is running", self._revision())
            await self._write(model, after_end(kept, improved=improved))
        return await self.status(model)

    async def resume(self, model: str) -> RetrainingStatus:
        """A person has looked: failures are forgotten, and the budget begins anew."""
        self._require(model)
        async with self._one_at_a_time:
            kept = await self._read(model)
            state = replace(resumed(kept.state), asked=())
            await self._write(model, replace(kept, state=state, person=""))
        return await self.status(model)

    # --- what it rests on ---------------------------------------------------------------------

    def _watched(self) -> dict[str, RetrainConfig]:
        snapshot = self._current()
        if snapshot is None:
            return {}
        return {
            name: config.monitoring.retrain
            for name, config in snapshot.models.items()
            if config.monitoring is not None and config.monitoring.retrain is not None
        }

    def _require(self, model: str) -> RetrainConfig:
        snapshot = self._current()
        if snapshot is None or model not in snapshot.models:
            raise ModelNotFound(f"Request for unknown model: '{model[:128]}' is not found")
        retrain = self._watched().get(model)
        if retrain is None:
            raise InvalidRequest(f"model '{model}' has no `monitoring.retrain`")
        return retrain

    def _verdict(self, model: str) -> tuple[str, Verdict | None]:
        """Production's version and the last verdict on it."""
        snapshot = self._current()
        version = effective(snapshot)[model].traffic.production if snapshot is not None else ""
        return version, self._verdicts().get((model, version, "production"))

    def _revision(self) -> int:
        snapshot = self._current()
        return snapshot.revision if snapshot is not None else 0

    async def _read(self, model: str) -> Kept:
        if model not in self._kept:
            path = self._folder / f"{model}.json"
            try:
                self._kept[model] = await asyncio.to_thread(read_kept, path)
            except msgspec.MsgspecError as error:
                raise ServingError(
                    f"retraining/{model}.json in the data directory cannot be read; "
                    "remove it to begin anew"
                ) from error
        return self._kept[model]

    async def _write(self, model: str, kept: Kept) -> None:
        await asyncio.to_thread(write_kept, self._folder / f"{model}.json", kept)
        self._kept[model] = kept

    async def _note(self, verb: str, model: str, result: str, *, who: str = _WHO) -> None:
        """An audit line; a disk that takes none is told of, and stops nothing."""
        try:
            await self._audit.record(who=who, verb=verb, subject=model, result=result)
        except OSError as error:
            _LOG.critical("the audit log cannot be written: %s", error.strerror)


def _asks(retrain: RetrainConfig) -> str:
    for name in ("command", "airflow", "webhook"):
        if getattr(retrain, name):
            return name
    return "nobody"
