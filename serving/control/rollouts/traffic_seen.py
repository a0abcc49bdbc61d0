"""What a rollout of a model would meet: from what was counted, or what somebody assumes. Pure."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from serving.config.schema import ModelConfig, Rule
from serving.control.fleet.rates import Rate
from serving.metric_families import FAMILIES
from serving.metrics import Samples
from serving.rollout.forecast import Traffic

__all__ = ["Assumed", "rate_of", "traffic_of"]

_DURATIONS: Final = "sluice_request_duration_seconds"
_REQUESTS: Final = "sluice_requests_total"
_TENTHS: Final = 10
_FAULTS: Final = frozenset(
    {"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNKNOWN"}
)
"""Codes that count against a version in a rollout (`serving.worker.evidence.faults`), nearly: why a
request ended so is not in its code."""

_Share = Annotated[float, Meta(ge=0, le=1)]


class Assumed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Instead of what was seen: for a forecast of traffic that is to come.

    `rps` are requests a second of each model, `error_rate` the share that fails, `keys` how many
    different assignment keys come, `shares` the share of requests with the event of a rule.
    """

    rps: Annotated[float, Meta(ge=0)] | None = None
    error_rate: _Share | None = None
    keys: Annotated[int, Meta(ge=1)] | None = None
    shares: dict[str, _Share] = {}


def rate_of(model: str, rates: Sequence[Rate]) -> float:
    """Requests a second that production and canary of a model answer together."""
    return sum(
        one.requests_per_second
        for one in rates
        if one.model == model and one.role in ("production", "canary")
    )


def traffic_of(model: ModelConfig, rate: float, counted: Samples, assumed: Assumed) -> Traffic:
    """Traffic for a forecast.

    Args:
        model: with a rollout.
        rate: requests a second that were seen.
        counted: counters of all processes since they were first started.
        assumed: what replaces it.
    """
    shares = {}
    for rule in model.rollout.guardrails.rules if model.rollout is not None else ():
        share = assumed.shares.get(rule.name)
        if share is None:
            share = _share(rule, model, counted, assumed)
        if share is not None:
            shares[rule.name] = share
    return Traffic(
        rate=rate if assumed.rps is None else assumed.rps,
        keys=assumed.keys,
        shares=shares,
        classes=_bins(model),
    )


def _bins(model: ModelConfig) -> int:
    """How many bins predictions are counted in (`serving.rollout.freezing`)."""
    monitoring = model.monitoring
    prediction = monitoring.prediction if monitoring is not None else None
    if monitoring is None or prediction is None or (prediction.score and monitoring.reference):
        return _TENTHS
    if not prediction.decision:
        return 2  # on either side of the threshold
    production = model.versions.get(model.traffic.production)
    return len(production.labels if production is not None else []) or _TENTHS


def _share(rule: Rule, model: ModelConfig, counted: Samples, assumed: Assumed) -> float | None:
    name, version = model.model, model.traffic.production
    if rule.metric == "error_rate":
        found = _failed(name, version, counted) if assumed.error_rate is None else None
        return assumed.error_rate if found is None else found
    if rule.metric == "latency" and rule.exceeds is not None:
        return _slower(name, version, float(rule.exceeds), counted)
    return None


def _failed(model: str, version: str, counted: Samples) -> float | None:
    """Share of production's requests that failed, since it was first counted."""
    codes = [
        (labels[4], slots[0])
        for (family, labels), slots in counted.items()
        if family == _REQUESTS and labels[:2] == (model, version)
    ]
    total = sum(number for _, number in codes)
    failed = sum(number for code, number in codes if code in _FAULTS)
    return failed / total if total else None


def _slower(model: str, version: str, bound: float, counted: Samples) -> float | None:
    """Share of production's answers slower than a bound, linear within its bucket."""
    slots: list[float] = []
    for (family, labels), one in counted.items():
        if family == _DURATIONS and labels == (model, version, "production"):
            slots = list(one)
    edges = FAMILIES[_DURATIONS].buckets
    numbers = slots[: len(edges) + 1]
    total = sum(numbers)
    if not total:
        return None
    place = bisect_left(edges, bound)
    if place == len(edges):
        return numbers[place] / total
    low, high = edges[place - 1] if place else 0.0, edges[place]
    part = numbers[place] * (high - bound) / (high - low)
    return (sum(numbers[place + 1 :]) + part) / total
