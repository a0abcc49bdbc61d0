"""`/metrics`: every process's counters in Prometheus' text format.

The numbers come from `serving.metrics_folder` (living and dead processes, never going back);
this file only gives them Prometheus' shape, and adds what control itself knows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from serving.config.keys import WorkerReport
from serving.metric_families import FAMILIES, Family
from serving.metrics import Samples

__all__ = ["STATES", "Page", "families", "own_families"]

STATES: Final = ("starting", "loading", "ready", "draining", "silent")
"""States of `sluice_workers`; `silent` is a worker that stopped reporting."""


def families(samples: Samples) -> Iterator[Metric]:
    """Give every family of `FAMILIES` that has samples its Prometheus shape, by name."""
    grouped: dict[str, list[tuple[tuple[str, ...], list[float]]]] = {}
    for (name, labels), slots in sorted(samples.items()):
        grouped.setdefault(name, []).append((labels, slots))
    for name, children in grouped.items():
        yield _family(name, FAMILIES[name], children)


def _family(
    name: str, family: Family, children: Iterable[tuple[tuple[str, ...], list[float]]]
) -> Metric:
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        bounds = [*map(floatToGoString, family.buckets), "+Inf"]
        for labels, slots in children:
            running = 0.0
            buckets: list[tuple[str, float]] = []
            # Slots are counts per bucket; Prometheus wants "at most this much".
            for bound, count in zip(bounds, slots, strict=False):
                running += count
                buckets.append((bound, running))
            histogram.add_metric(labels, buckets, sum_value=slots[-1])
        return histogram
    metric = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(
        name, family.help, labels=family.labels
    )
    for labels, slots in children:
        metric.add_metric(labels, slots[0])
    return metric


def own_families(
    *,
    version: str,
    revision: int,
    workers: Iterable[tuple[WorkerReport, str]],
    store_up: bool,
    feature_writes: Mapping[tuple[str, str, str], int],
    stream_lag: Mapping[str, int],
    quarantined: Iterable[tuple[str, str]] = (),
    label_outcomes: Mapping[tuple[str, str], int] | None = None,
    monitoring_events: Mapping[tuple[str, str], int] | None = None,
    retrainings: Mapping[tuple[str, str], int] | None = None,
    notices: Mapping[tuple[str, str], int] | None = None,
) -> Iterator[Metric]:
    """What control knows beside the counters.

    Args:
        version: of this installation.
        revision: the configuration's.
        workers: every reported worker and its state, one of `STATES`.
        store_up: whether the store answered last time.
        feature_writes: rows by view, source and outcome.
        stream_lag: entries that wait, by view.
        quarantined: (model, version) of those that crashed workers.
        label_outcomes: labels by model and outcome.
        monitoring_events: changes of level by model and new level.
        retrainings: what became of requests for training, by model and outcome.
        notices: what became of notices of rollouts, by model and outcome.
    """
    build = GaugeMetricFamily("sluice_build_info", "The installation.", labels=("version",))
    build.add_metric((version,), 1)
    yield build
    yield GaugeMetricFamily(
        "sluice_configuration_revision", "Revision control has published.", value=revision
    )
    yield GaugeMetricFamily("sluice_store_up", "Whether the store answers.", value=store_up)
    states = Counter(state for _, state in workers)
    gauge = GaugeMetricFamily("sluice_workers", "Workers, by state.", labels=("state",))
    for state in STATES:
        gauge.add_metric((state,), states[state])
    yield gauge
    written = CounterMetricFamily(
        "sluice_feature_writes_total",
        "Rows that were pushed or came by a stream, by what became of them.",
        labels=("view", "source", "outcome"),
    )
    for labels, count in sorted(feature_writes.items()):
        written.add_metric(labels, count)
    yield written
    lag = GaugeMetricFamily(
        "sluice_feature_stream_lag",
        "Entries of a view's stream that are not written yet.",
        labels=("view",),
    )
    for view, count in sorted(stream_lag.items()):
        lag.add_metric((view,), count)
    yield lag
    kept_out = GaugeMetricFamily(
        "sluice_quarantined_versions",
        "Versions that crashed workers and get no requests: 1 each.",
        labels=("model", "version"),
    )
    for model_version in sorted(set(quarantined)):
        kept_out.add_metric(model_version, 1)
    yield kept_out
    came = CounterMetricFamily(
        "sluice_labels_total",
        "Labels that came, by what became of them.",
        labels=("model", "outcome"),
    )
    for model_outcome, count in sorted((label_outcomes or {}).items()):
        came.add_metric(model_outcome, count)
    yield came
    events = CounterMetricFamily(
        "sluice_monitoring_events_total",
        "Times that what is watched came to another level: none, inform, alert, trigger.",
        labels=("model", "level"),
    )
    for model_level, count in sorted((monitoring_events or {}).items()):
        events.add_metric(model_level, count)
    yield events
    asked = CounterMetricFamily(
        "sluice_retraining_total",
        "Requests for training: asked, delivered, failed (a delivery), given_up, refused (a "
        "person has to look).",
        labels=("model", "outcome"),
    )
    for model_outcome, count in sorted((retrainings or {}).items()):
        asked.add_metric(model_outcome, count)
    yield asked
    told = CounterMetricFamily(
        "sluice_rollout_notices_total",
        "Notices of rollouts: told, delivered, failed (an attempt), given_up.",
        labels=("model", "outcome"),
    )
    for model_outcome, count in sorted((notices or {}).items()):
        told.add_metric(model_outcome, count)
    yield told


class _Once(Collector):
    """Metrics that were made already, as prometheus_client wants them handed over."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class Page:
    """The whole page. Reads files: call it from a thread.

    `samples` adds up what all processes have counted, `own` makes control's own metrics at the
    time of a scrape.
    """

    def __init__(self, samples: Callable[[], Samples], own: Callable[[], Iterable[Metric]]) -> None:
        self._samples = samples
        self._own = own

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type, in the format that the Accept header asks for."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once([*self._own(), *families(self._samples())]))
        encoder, content_type = choose_encoder(accept)
        return encoder(registry), content_type
