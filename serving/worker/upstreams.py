"""How a worker reaches each version: in this process, in hosts of its own, or at another server."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from serving.clock import Clock
from serving.config.hosts import data_sockets, has_traffic, host_id, is_dedicated
from serving.config.model_url import parse_model_url
from serving.config.schema import HostsConfig, ModelConfig
from serving.config.snapshot import StagedVersion
from serving.metrics import MetricsFile
from serving.upstream import Upstream
from serving.upstream.endpoints import FixedEndpoints, SocketEndpoints
from serving.upstream.remote import Manner, RemoteUpstream

__all__ = ["START_SECONDS", "Upstreams"]

START_SECONDS: Final = 60.0
"""How long a table waits for the first host of a version that is to have traffic."""


LoadInline = Callable[[ModelConfig, str, StagedVersion], Awaitable[Upstream]]


class Upstreams:
    """Makes upstreams, and knows those whose hosts are the engine's to start.

    Args:
        run: where hosts have their sockets.
        inline: makes one that is loaded in this process.
        metrics: this process's numbers.
        clock: whose monotonic seconds deadlines are in.
    """

    def __init__(self, run: Path, inline: LoadInline, metrics: MetricsFile, clock: Clock) -> None:
        self._run = run
        self._inline = inline
        self._metrics = metrics
        self._clock = clock
        self._all: list[RemoteUpstream] = []
        self._own: dict[str, RemoteUpstream] = {}

    async def load(self, config: ModelConfig, version: str, staged: StagedVersion) -> Upstream:
        """Make one that is ready: loaded, or with a host that answers.

        Raises:
            InvalidArtifact: the file is gone, changed, or does not load or run.
            ModelNotReady: none of its hosts came up in time.
        """
        if staged.urls:
            return self._external(config, version, staged)
        if is_dedicated(config, version):
            return await self._dedicated(config, version, staged)
        return await self._inline(config, version, staged)

    def demand(self) -> dict[str, float]:
        """By host id: requests that want one of these hosts now."""
        return {id_: remote.demand for id_, remote in self._own.items() if not remote.closed}

    def publish(self) -> None:
        """Bring gauges up to date."""
        for remote in self._all:
            remote.publish()
        # A closed one has published that it has no hosts.
        self._all = [remote for remote in self._all if not remote.closed]
        self._own = {id_: remote for id_, remote in self._own.items() if not remote.closed}

    def _external(self, config: ModelConfig, version: str, staged: StagedVersion) -> Upstream:
        serve = config.serve
        remote = RemoteUpstream(
            (config.model, version),
            staged.signature,
            FixedEndpoints([parse_model_url(url) for url in staged.urls]),
            Manner(
                path=None,
                binary=staged.binary,
                own=False,
                max_rows=serve.max_batch_size,
                max_in_flight=serve.max_queue_size,
            ),
            metrics=self._metrics,
            clock=self._clock,
        )
        self._all.append(remote)
        return remote

    async def _dedicated(
        self, config: ModelConfig, version: str, staged: StagedVersion
    ) -> Upstream:
        serve = config.serve
        id_ = host_id(config.model, version, staged, serve)
        remote = RemoteUpstream(
            (config.model, version),
            staged.signature,
            SocketEndpoints(partial(data_sockets, self._run, id_)),
            Manner(
                path=f"/v2/models/{config.model}/versions/{version}/infer",
                binary=True,
                own=True,
                max_rows=serve.max_batch_size,
                max_in_flight=serve.max_queue_size,
                cold_start=float(serve.cold_start_timeout),
            ),
            metrics=self._metrics,
            clock=self._clock,
        )
        self._all.append(remote)
        self._own[id_] = remote
        always = not isinstance(serve.hosts, HostsConfig) or serve.hosts.min > 0
        if always and has_traffic(config, version):
            try:
                await remote.until_there(START_SECONDS)
            except BaseException:
                await remote.close()
                raise
        return remote
