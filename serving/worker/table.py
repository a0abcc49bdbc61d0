"""The live table: the route table with every version's lane resolved; replaced as a whole."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

import msgspec

from feature_cache.cache import FeatureCache
from feature_cache.views import FeatureView
from serving.clock import Clock
from serving.config.hosts import has_traffic, is_dedicated
from serving.config.schema import ModelConfig
from serving.config.snapshot import RolloutTraffic, Snapshot, StagedVersion
from serving.errors import InvalidArtifact, InvalidConfig, ModelNotFound, ModelNotReady, SluiceError
from serving.metrics import MetricsFile
from serving.traffic.detour import around
from serving.traffic.rolled import effective
from serving.traffic.table import Decision, ModelRoute, RouteTable
from serving.types import InferRequest
from serving.upstream import Upstream
from serving.worker.evidence.watch import Watch
from serving.worker.join_compiler import compile_join
from serving.worker.lane import Lane
from serving.worker.quarantine import Shut, nobody
from serving.worker.tally import Ledger

__all__ = ["LiveModel", "LiveTable", "Loader"]

_JOINING_POLL_SECONDS: Final = 0.001
LoadFeatures = Callable[[Mapping[str, FeatureView]], Awaitable[FeatureCache]]
LoadUpstream = Callable[[ModelConfig, str, StagedVersion], Awaitable[Upstream]]


class LiveModel:
    """One model's route and lanes."""

    __slots__ = (
        "_key",
        "_key_header",
        "config",
        "deadline",
        "foregone",
        "lanes",
        "loaded",
        "name",
        "places",
        "rollout",
        "route",
        "shut",
        "waits",
        "watch",
    )

    def __init__(
        self,
        config: ModelConfig,
        route: ModelRoute,
        lanes: Mapping[str, Lane],
        *,
        loaded: bool,
        shut: Mapping[str, str] = MappingProxyType({}),
        rollout: RolloutTraffic | None = None,
    ) -> None:
        self.name = config.model
        self.config = config
        self.route = route
        self.lanes = lanes
        self.loaded = loaded
        self.shut = shut
        """Versions in quarantine, and what a request for one is told."""
        self.deadline = config.serve.deadline
        self.rollout = rollout
        """What its rollout has made of the plan, and what is counted for it."""

        self.watch: Watch | None = None
        """Where requests leave their evidence; None: no rollout counts."""

        self.places = route.weighs or (rollout is not None and rollout.counting)
        """Whether anybody wants to know where a key falls."""

        self.waits = route.falls_back or any(lane.waits for lane in lanes.values())
        """Whether a request may wait for more than one inference: features, a second try."""

        # A plan that draws no lots needs no key.
        needs_key = route.draws or route.overrides.by_key
        self._key = route.assignment.key if needs_key else None
        self._key_header = route.assignment.header if needs_key else None
        self.foregone = None if needs_key or route.overrides else route.only
        """What everybody gets who names no version, where that is settled before anybody asks."""

    def key_of(self, request: InferRequest, headers: Mapping[str, str]) -> bytes | None:
        """Read the assignment key: of a batch, the first row's. None if there is none."""
        if self._key is not None:
            for tensor in request.inputs:
                if tensor.name == self._key and tensor.data.size:
                    value = tensor.data.flat[0]
                    return value if isinstance(value, bytes) else b"%d" % value
        if self._key_header is not None:
            header = headers.get(self._key_header)
            return header.encode() if header else None
        return None

    def not_ready(self) -> dict[str, str]:
        """Versions that do not answer, and why: in quarantine, or new and still being started.

        What nobody rolls out is left out: processes of its own are started when somebody asks.
        """
        canary = self.rollout.canary if self.rollout is not None else ""
        lane = self.lanes.get(canary)
        if lane is None or lane.upstream.there():
            return dict(self.shut)
        return {canary: "no process of it answers yet", **self.shut}

    def lane(self, version: str) -> Lane:
        """Find a version's lane. Raises ModelNotFound, ModelNotReady."""
        lane = self.lanes.get(version) if self.loaded else None
        if lane is not None and lane.upstream.ready():
            return lane
        if version not in self.config.versions:
            raise ModelNotFound(
                f"Request for unknown model: '{self.name}' has no version '{version[:64]}'"
            )
        if self.loaded and version in self.shut:
            raise ModelNotReady(self.shut[version])
        state = "is not ready" if self.loaded else "is unloaded"
        raise ModelNotReady(f"model '{self.name}' version '{version}' {state}")

    def answering(self, decision: Decision) -> Lane:
        """Find the lane of a decision: `lane` without asking whether it is ready.

        An upstream that is not says so itself when it is asked to infer.
        """
        lane = self.lanes.get(decision.version) if self.loaded else None
        return lane if lane is not None else self.lane(decision.version)


class LiveTable(msgspec.Struct, frozen=True):
    """Everything one revision needs to answer."""

    revision: int
    models: Mapping[str, LiveModel]
    header_names: frozenset[str]
    snapshot: Snapshot | None = None

    @classmethod
    def empty(cls) -> "LiveTable":
        """Before the first snapshot: no models."""
        return cls(revision=0, models={}, header_names=frozenset())

    def model(self, name: str) -> LiveModel:
        """Find a model. Raises ModelNotFound."""
        try:
            return self.models[name]
        except KeyError:
            raise ModelNotFound(f"Request for unknown model: '{name[:128]}' is not found") from None

    def upstream_of(self, lane: Lane) -> Upstream | None:
        """Find what serves now the very file of a lane of another table."""
        model = self.models.get(lane.model)
        its = model.lanes.get(lane.version) if model is not None else None
        return its.upstream if its is not None and its.staged == lane.staged else None


class Loader:
    """Turns snapshots into tables, reusing what has not changed.

    A snapshot is applied whole or not at all: if one version cannot be loaded, the caller
    keeps the table it has.
    """

    def __init__(
        self,
        load: LoadUpstream,
        metrics: MetricsFile,
        ledger: Ledger,
        clock: Clock,
        features: LoadFeatures | None = None,
        *,
        shut: Callable[[Snapshot], Shut] = nobody,
    ) -> None:
        self._features = features
        self._load = load
        self._metrics = metrics
        self._ledger = ledger
        self._wall = clock.wall
        self._shut = shut

    async def build(self, snapshot: Snapshot, previous: LiveTable) -> LiveTable:
        """Load what is new and compile the table.

        Raises:
            InvalidConfig, InvalidArtifact: naming the version that cannot be served.
        """
        features = await self._features(snapshot.views) if self._features is not None else None
        shut = self._shut(snapshot)
        served = effective(snapshot)
        plans = {name: around(one, shut.get(name, ())) for name, one in served.items()}
        routes = RouteTable.compile(plans, snapshot.revision)
        loaded: list[Upstream] = []
        models: dict[str, LiveModel] = {}
        try:
            for name, config in served.items():
                lanes: dict[str, Lane] = {}
                kept_out = shut.get(name, {})
                if name not in snapshot.unloaded:
                    for version, staged in snapshot.staged.get(name, {}).items():
                        if version in kept_out:
                            continue
                        upstream = _reusable(previous, config, version, staged)
                        if upstream is None:
                            upstream = await self._load(config, version, staged)
                            loaded.append(upstream)
                        join = compile_join(config, staged.signature, snapshot.views, features)
                        lanes[version] = Lane(
                            config=config,
                            version=version,
                            staged=staged,
                            upstream=upstream,
                            join=join,
                            rows=join.row_plan(
                                config,
                                version,
                                staged,
                                snapshot.views,
                                snapshot.references.get(name),
                            ),
                            metrics=self._metrics,
                            ledger=self._ledger,
                            wall=self._wall,
                        )
                loads = name not in snapshot.unloaded
                models[name] = LiveModel(
                    config,
                    routes.models[name],
                    lanes,
                    loaded=loads,
                    shut=kept_out,
                    rollout=snapshot.rollouts.get(name),
                )
        except (InvalidConfig, InvalidArtifact):
            await _close(loaded)
            raise
        except SluiceError as error:
            await _close(loaded)
            raise InvalidArtifact(str(error)) from error
        headers = {
            name
            for model in models.values()
            for name in (
                *model.route.overrides.headers,
                model.route.assignment.header,
            )
            if name
        }
        return LiveTable(
            revision=snapshot.revision,
            models=models,
            header_names=frozenset(headers),
            snapshot=snapshot,
        )

    async def retire(self, old: LiveTable, new: LiveTable) -> None:
        """Close the sessions that the new table no longer uses, after their last answer.

        Of a version in quarantine nothing more is run: who waits for it is told that it is gone.
        """
        bad = _shut_now(old, new)
        await _abandon(bad)
        # A request that waits for its features wants its upstream when it has them.
        while any(  # noqa: ASYNC110 - milliseconds, when a table changes
            lane.joining for model in old.models.values() for lane in model.lanes.values()
        ):
            await asyncio.sleep(_JOINING_POLL_SECONDS)
        kept = {id(lane.upstream) for model in new.models.values() for lane in model.lanes.values()}
        kept |= {id(upstream) for upstream in bad}  # closed already
        await _close(
            [
                lane.upstream
                for model in old.models.values()
                for lane in model.lanes.values()
                if id(lane.upstream) not in kept
            ]
        )


def _reusable(
    previous: LiveTable, config: ModelConfig, version: str, staged: StagedVersion
) -> Upstream | None:
    model = previous.models.get(config.model)
    lane = model.lanes.get(version) if model is not None else None
    if (
        lane is not None
        and lane.staged.sha256 == staged.sha256
        and lane.staged.urls == staged.urls
        and lane.config.serve == config.serve
        # A dedicated version without traffic may have no process yet: it is loaded anew, which
        # waits for one.
        and (not is_dedicated(config, version) or _had_traffic(lane, config, version))
    ):
        return lane.upstream
    return None


def _had_traffic(lane: Lane, config: ModelConfig, version: str) -> bool:
    return has_traffic(lane.config, version) or not has_traffic(config, version)


def _shut_now(old: LiveTable, new: LiveTable) -> list[Upstream]:
    """Upstreams of the old table whose very bytes the new one keeps out."""
    if new.snapshot is None:
        return []
    return [
        lane.upstream
        for name, model in old.models.items()
        for version, lane in model.lanes.items()
        if name in new.models
        and version in new.models[name].shut
        and lane.staged.sha256 == new.snapshot.staged[name][version].sha256
    ]


async def _abandon(upstreams: list[Upstream]) -> None:
    for upstream in upstreams:
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await upstream.close()


async def _close(upstreams: list[Upstream]) -> None:
    for upstream in upstreams:
        await upstream.close()
