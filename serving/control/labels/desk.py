"""Where labels come in: checked, compared with what is known, kept, counted."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa

from serving.clock import Clock
from serving.config.schema import GatewayConfig, LabelsConfig, ModelConfig
from serving.control.labels.joiner_orders import By, Found, LookUp, Report, Told
from serving.control.labels.joiner_process import Joiner
from serving.errors import InvalidRequest, ModelNotFound, Overloaded, ServingError
from serving.performance.report import PerformanceReport
from serving.performance.slices import Tolerance
from serving.recording.columns import Digest, digest_with
from serving.recording.erasing_labels import LabelsErased, erase_labels
from serving.recording.joined import JoinPlan
from serving.recording.label import Label, Taken, Unfit, check
from serving.recording.labels import LabelStore, LabelStoreBusy
from serving.recording.layout import LogFolder
from serving.recording.outcomes import OUTCOMES, Outcome, outcomes

__all__ = ["InvalidLabel", "LabelDesk", "LabelsTaken", "UnknownPrediction", "taken"]

_SHOWN: Final = 20
_LISTED: Final = 10
_WAITING: Final = 16
_UNKNOWN: Final = "_unknown"
_LOG = logging.getLogger("labels")


class InvalidLabel(msgspec.Struct, frozen=True, kw_only=True):
    """An item that is no label: its place in the list, from 0, and why."""

    index: int
    reason: str


class UnknownPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """A label whose prediction is not in the log: its place, and what it names."""

    index: int
    names: str


class LabelsTaken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of labels; each is counted once.

    `joined`: its prediction is in the log. `repeated`: the same value was there. `corrected`:
    another value was there; the new one holds. `orphan`: kept until its prediction appears; the
    first ten are in `unknown`. `late`: after the horizon; kept, and not joined. `invalid`: only
    with `partial`, nothing was kept of these.
    """

    joined: int = 0
    repeated: int = 0
    corrected: int = 0
    orphan: int = 0
    late: int = 0
    invalid: list[InvalidLabel] = []
    unknown: list[UnknownPrediction] = []


class LabelDesk:
    """Takes labels and tells how models do.

    Args:
        models: those of the configuration served now.
        gateway: `gateway.yaml` as it is gone by.
        data: the data directory.
    """

    def __init__(
        self,
        *,
        models: Callable[[], Mapping[str, ModelConfig]],
        gateway: Callable[[], GatewayConfig],
        data: Path,
        clock: Clock,
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """Labels by model and outcome."""
        self._models = models
        self._gateway = gateway
        self._data = data
        self._clock = clock
        self._joiner = Joiner()
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._store: tuple[Path, LabelStore] | None = None

    async def close(self) -> None:
        """End the joiner and let go of the store."""
        await self._joiner.close()
        if self._store is not None:
            self._store[1].close()

    async def take(
        self,
        items: Sequence[Any],
        *,
        actor: str,
        model: str = "",
        source: str = "",
        partial: bool = False,
        dry_run: bool = False,
    ) -> LabelsTaken:
        """Keep labels: all of them, or, unless `partial`, none if one is invalid.

        Args:
            items: decoded JSON.
            actor: who says so.
            model: of items that do not say it.
            source: of items that do not say it.
            partial: leave invalid items out and tell which.
            dry_run: tell what would become of them.

        Raises:
            InvalidRequest: naming the items. Overloaded: too many wait; sending again is safe.
        """
        log = self._log()
        now = int(self._clock.wall() * 1e6)
        known = await asyncio.to_thread(self._known, log)
        labels, places, invalid = await asyncio.to_thread(
            _checked, items, known, now, model, source
        )
        if invalid and not partial:
            if not dry_run:
                self._count(invalid, items, known, model)
            said = "; ".join(f"label {one.index}: {one.reason}" for one in invalid[:_SHOWN])
            more = len(invalid) - _SHOWN
            said += f"; and {more} more" if more > 0 else ""
            raise InvalidRequest(f"nothing was taken, because of {said}")
        if self._waiting >= _WAITING:
            raise Overloaded("too many labels wait to be taken", reason="labels")
        self._waiting += 1
        try:
            async with self._turn:
                decided = await self._decided(log, labels, known)
                if not dry_run:
                    await asyncio.to_thread(self._keep, log, labels, decided, actor, now)
        finally:
            self._waiting -= 1
        if not dry_run:
            self.counts.update(
                (label.model, what) for label, what in zip(labels, decided, strict=True)
            )
            self._count(invalid, items, known, model)
        return _answer(labels, places, decided, invalid)

    def _known(self, log: Path) -> dict[str, Taken]:
        """What labels may be, by model. Reads the log's key where a model hides its entities."""
        known = {}
        for name, config in self._models().items():
            hides = any(config.log.fields.get(key) == "hash" for key in config.entity)
            digest = digest_with(LogFolder(log).hash_key()) if hides else None
            known[name] = taken(config, digest)
        return known

    def _count(
        self, invalid: Sequence[InvalidLabel], items: Sequence[Any], known: Any, model: str
    ) -> None:
        """Count invalid items; a name that is not configured is never a metric's label."""
        for one in invalid:
            item = items[one.index]
            name = item.get("model", model) if isinstance(item, dict) else model
            named = isinstance(name, str) and name in known
            self.counts[name if named else _UNKNOWN, "invalid"] += 1

    async def _decided(
        self, log: Path, labels: Sequence[Label], known: Mapping[str, Taken]
    ) -> list[Outcome]:
        decided: dict[int, Outcome] = {}
        for name in dict.fromkeys(label.model for label in labels):
            places = [place for place, label in enumerate(labels) if label.model == name]
            of_model = [labels[place] for place in places]
            order = LookUp(model=name, entity=sorted(known[name].entity), labels=of_model)
            found = await self._joiner.ask(log, order, Found)
            what = outcomes(of_model, found.kept, found.made, known[name].horizon)
            decided.update(zip(places, what, strict=True))
        return [decided[place] for place in range(len(labels))]

    def _keep(
        self, log: Path, labels: Sequence[Label], decided: list[Outcome], actor: str, now: int
    ) -> None:
        store = self._opened(log)
        new = [one for one, what in zip(labels, decided, strict=True) if what != "repeated"]
        store.append(new, actor=actor, received=now)
        if not store.wants_compacting:
            return
        try:
            store.compact()
            store.expire(now - int(self._kept_seconds() * 1e6))
        except OSError as error:  # the labels are safe; it is tried again with the next ones
            _LOG.warning("the journal of labels stays as it is: %s", error.strerror)

    def _kept_seconds(self) -> float:
        """How long labels are of use: as long as rows are kept, and the longest horizon."""
        log = self._gateway().log
        longest = max((taken(one).horizon for one in self._models().values()), default=0.0)
        return (log.retention if log is not None else 0.0) + longest

    def _opened(self, log: Path) -> LabelStore:
        if self._store is not None and self._store[0] != log:
            self._store[1].close()
            self._store = None
        if self._store is None:
            try:
                store = LabelStore(log / "labels")
            except LabelStoreBusy as error:
                raise Overloaded(str(error), reason="labels") from error
            for lost in store.lost:
                _LOG.warning(
                    "the journal of labels has %d bytes at %d that cannot be read; they are "
                    "skipped. If control was killed there, nobody was told they had been taken",
                    lost.bytes, lost.offset,
                )  # fmt: skip
            self._store = log, store
        return self._store[1]

    def _log(self) -> Path:
        config = self._gateway().log
        if config is None:
            raise InvalidRequest(
                "there is no prediction log to join labels with; `log` in gateway.yaml makes one"
            )
        return self._data / config.path

    async def erase(
        self,
        keys: Mapping[str, Sequence[str]],
        predictions: Sequence[tuple[str, int]],
        models: Sequence[str] | None,
    ) -> LabelsErased:
        """Remove a subject's labels for good; see `serving.recording.erasing_labels`.

        Raises:
            InvalidRequest: there is no log. Overloaded: another process writes the labels.
            ServingError: a file cannot be read or written.
        """
        log = self._log()
        async with self._turn:
            self._opened(log)
            try:
                return await asyncio.to_thread(
                    erase_labels, log / "labels", keys, predictions, models
                )
            except (OSError, pa.ArrowException) as error:
                raise ServingError(f"labels cannot be erased: {error}") from error

    async def performance(
        self, model: str, *, by: By = "version", last: float | None = None
    ) -> PerformanceReport:
        """How a model does, over the last `last` seconds of predictions or all that are logged.

        Raises:
            ModelNotFound, InvalidRequest, Overloaded.
        """
        config = self._models().get(model)
        if config is None:
            raise ModelNotFound(f"Request for unknown model: '{model}' is not found")
        log = self._log()
        now = self._clock.wall()
        monitoring = config.monitoring
        prediction = monitoring.prediction if monitoring is not None else None
        slices = list(monitoring.slices) if monitoring is not None else []
        if by == "slice" and not slices:
            raise InvalidRequest(f"`monitoring.slices` of '{model}' names no column")
        labels = monitoring.labels if monitoring is not None else LabelsConfig()
        plan = JoinPlan(
            model=model,
            task=prediction.task if prediction is not None else "",
            decision=prediction.decision if prediction is not None else "",
            score=prediction.score if prediction is not None else "",
            threshold=prediction.threshold if prediction is not None else 0.5,
            entity=sorted(taken(config).entity),
            slices=slices if by == "slice" else [],
            horizon=float(labels.horizon),
            since=max(0.0, now - last) if last is not None else 0.0,
            until=now + 60.0,  # a worker's clock may be ahead
            now=now,
        )
        order = Report(
            plan=plan,
            by=by,
            bucket=float(monitoring.window) if monitoring is not None else 3600.0,
            min_coverage=labels.min_coverage,
            tolerance=Tolerance(
                **msgspec.to_builtins(monitoring.fairness) if monitoring is not None else {}
            ),
        )
        return (await self._joiner.ask(log, order, Told)).report


def taken(config: ModelConfig, digest: Digest | None = None) -> Taken:
    """What labels of a model may be, by its configuration.

    Args:
        config: the model's.
        digest: of keys that the log does not keep as they are.
    """
    policies = config.log.fields
    monitoring = config.monitoring
    prediction = monitoring.prediction if monitoring is not None else None
    return Taken(
        task=prediction.task if prediction is not None else "",
        classes=_class_numbers(config),
        # By a key that the log drops nothing can be found.
        entity={name: kind for name, kind in config.entity.items() if policies.get(name) != "drop"},
        hidden={
            name: digest
            for name in config.entity
            if digest is not None and policies.get(name) == "hash"
        },
        horizon=float((monitoring.labels if monitoring is not None else LabelsConfig()).horizon),
    )


def _class_numbers(config: ModelConfig) -> dict[str, int]:
    """Class names that have the same place in every version that names its classes."""
    places: dict[str, set[int]] = {}
    for version in config.versions.values():
        for place, name in enumerate(version.labels):
            places.setdefault(name, set()).add(place)
    return {name: min(found) for name, found in places.items() if len(found) == 1}


def _checked(
    items: Sequence[Any], known: Mapping[str, Taken], now: int, model: str, source: str
) -> tuple[list[Label], list[int], list[InvalidLabel]]:
    """Labels, where they were in the list, and what is none."""
    labels, places, invalid = [], [], []
    for index, item in enumerate(items):
        try:
            labels.append(check(item, known, now, model=model, source=source))
        except Unfit as error:
            invalid.append(InvalidLabel(index=index, reason=str(error)))
        else:
            places.append(index)
    return labels, places, invalid


def _answer(
    labels: Sequence[Label],
    places: Sequence[int],
    decided: Sequence[Outcome],
    invalid: list[InvalidLabel],
) -> LabelsTaken:
    totals = Counter(decided)
    orphans = [
        UnknownPrediction(index=place, names=label.prediction_id or label.entity)
        for label, place, what in zip(labels, places, decided, strict=True)
        if what == "orphan"
    ]
    return LabelsTaken(
        **{what: totals[what] for what in OUTCOMES if what != "invalid"},
        invalid=invalid,
        unknown=orphans[:_LISTED],
    )
