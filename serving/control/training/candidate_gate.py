"""Asks the labels whether a candidate that is to answer did worse than production for anybody."""

from collections.abc import Callable

from serving.clock import Clock
from serving.config.schema import RetrainConfig
from serving.config.snapshot import Snapshot
from serving.control.labels.desk import LabelDesk
from serving.errors import InvalidConfig, SluiceError
from serving.performance.slice_gate import compare_with_production
from serving.traffic.rolled import rolled

__all__ = ["CandidateGate"]


class CandidateGate:
    """Compares by `monitoring.slices`, over the time in which the candidate was a shadow.

    Args:
        labels: makes the report; runs in the joiner.
        current: what is served.
        clock: the time.
    """

    def __init__(
        self, labels: LabelDesk, *, current: Callable[[], Snapshot | None], clock: Clock
    ) -> None:
        self._labels = labels
        self._current = current
        self._clock = clock

    async def __call__(self, model: str, sha256: str, since: float) -> list[str]:
        """Refuse it, or warn of what could not be compared.

        Raises:
            InvalidConfig: it is worse in a slice, beyond the tolerance and beyond chance.
        """
        snapshot = self._current()
        if snapshot is None or model not in snapshot.models:
            return []
        config = rolled(snapshot.models[model], snapshot.rollouts.get(model))
        version = next(
            (name for name, one in snapshot.staged[model].items() if one.sha256 == sha256), None
        )
        if version is None or config.monitoring is None or not config.monitoring.slices:
            return [f"{model}: no slice is compared with production; name `monitoring.slices`"]
        try:
            report = await self._labels.performance(
                model, by="slice", last=max(1.0, self._clock.wall() - since)
            )
        except SluiceError as error:
            return [f"{model}/{version}: slices are not compared: {error.message}"]
        gate = compare_with_production(
            report.groups,
            production=config.traffic.production,
            candidate=version,
            allowed=(config.monitoring.retrain or RetrainConfig()).tolerance,
        )
        if gate.worse:
            raise InvalidConfig(
                f"{model}/{version} does worse than {config.traffic.production} as a shadow: "
                f"{gate.worse[0]}",
                tuple(f"{model}/{version}: {words}" for words in gate.worse),
            )
        if not gate.compared:
            return [f"{model}/{version}: no slice has labels enough to be compared"]
        return []
