"""What is remembered of a model's losses between two looks: baselines and streams, on the disk."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from serving.config.schema import MonitoringConfig, RetrainConfig
from serving.control.labels.joiner_orders import LossesTold, VersionLosses
from serving.drift.changes import Change
from serving.drift.harm import LossStream, follow
from serving.drift.verdict import Loss
from serving.files import write_whole
from serving.performance.counts import Moments
from serving.performance.losses import Baseline, first_windows, last_windows

__all__ = ["Harm", "Known", "KnownVersion", "advance", "read_known", "terms_of", "write_known"]

_SEEN: Final = 600
"""Notes of which label was the newest when; more would be hours."""


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """How a version's loss stands. Times are seconds since 1970."""

    version: str
    at: float
    metric: str
    realised: Loss | None
    """None as long as there is no baseline, or nothing after it."""
    baseline_start: float | None = None
    baseline_end: float | None = None
    baseline_labels: int = 0
    losses: int = 0
    """Single losses seen in the order of their labels."""
    change_seen: bool = False
    """Whether those show a change for the worse."""
    change: Change | None = None
    due: int = 0
    coverage: float | None = None


class KnownVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Of one version's file."""

    baseline: Baseline | None = None
    stream: LossStream | None = None


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Of one model. `read` is the revision of the last label whose losses were taken."""

    terms: str
    """The metric and what the outputs mean; of others nothing here is true."""

    read: int = 0
    newest: list[tuple[float, int]] = []
    """When a label was the newest one (seconds since 1970), and its revision; oldest first."""

    versions: dict[str, KnownVersion] = {}
    """By `VERSION DIGEST`."""

    def settled(self, before: float) -> int:
        """Up to which label every prediction that has one is in the log by now.

        Args:
            before: when a label was there whose prediction can be read by now.
        """
        return max((revision for at, revision in self.newest if at <= before), default=0)


def terms_of(monitoring: MonitoringConfig, retrain: RetrainConfig) -> str:
    """What the remembered numbers depend on, as text."""
    told = (retrain.metric, retrain.tolerance, retrain.min_labels, monitoring.prediction)
    return msgspec.json.encode(told).decode()


def advance(
    known: Known, told: LossesTold, files: Mapping[str, str], retrain: RetrainConfig, now: float
) -> tuple[Known, dict[str, Harm]]:
    """Take an answer of the joiner: what to remember, and how each version stands.

    Args:
        known: what was remembered.
        told: the answer.
        files: digest by version, of those that are configured.
        retrain: metric, tolerance, labels.
        now: seconds since 1970.
    """
    versions: dict[str, KnownVersion] = {}
    found: dict[str, Harm] = {}
    for one in told.versions:
        if one.digest not in ("", files.get(one.version)):
            continue  # another file under the same name, or one that is no longer configured
        key = f"{one.version} {one.digest}"
        before = known.versions.get(key, KnownVersion())
        baseline = before.baseline or first_windows(one.windows, least=retrain.min_labels, now=now)
        stream = follow(before.stream, one.single, retrain.metric, retrain.tolerance)
        versions[key] = KnownVersion(baseline=baseline, stream=stream)
        if one.version not in found or one.digest:
            found[one.version] = _harm(one, baseline, stream, retrain, now)
    newest = known.newest
    if not newest or newest[-1][1] != told.newest:
        newest = [*newest, (now, told.newest)][-_SEEN:]
    return (
        Known(
            terms=known.terms,
            read=told.read,
            newest=newest,
            # A version that was not asked for lately is not forgotten: it may come back.
            versions={**known.versions, **versions},
        ),
        found,
    )


def _harm(
    one: VersionLosses,
    baseline: Baseline | None,
    stream: LossStream | None,
    retrain: RetrainConfig,
    now: float,
) -> Harm:
    realised = None
    if baseline is not None:
        lately = last_windows(one.windows, baseline, least=retrain.min_labels)
        realised = _compared(lately, baseline.losses, retrain.metric)
    return Harm(
        version=one.version,
        at=now,
        metric=retrain.metric,
        realised=realised,
        baseline_start=baseline.start if baseline else None,
        baseline_end=baseline.end if baseline else None,
        baseline_labels=baseline.losses.rows if baseline else 0,
        losses=stream.losses if stream else 0,
        change_seen=stream is not None and stream.worse,
        change=stream.change if stream else None,
        due=one.due,
        coverage=one.coverage,
    )


def _compared(lately: Moments, first: Moments, metric: str) -> Loss | None:
    now, reference = lately.mean, first.mean
    if now is None or reference is None:
        return None
    return Loss(
        metric=metric,
        rows=lately.rows,
        now=now,
        error=math.sqrt(lately.variance),
        reference=reference,
        reference_error=math.sqrt(first.variance),
    )


def read_known(path: Path, terms: str) -> Known:
    """What was remembered, if it is of these terms. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
        known = msgspec.json.decode(path.read_bytes(), type=Known)
        if known.terms == terms:
            return known
    return Known(terms=terms)


def write_known(path: Path, known: Known) -> None:
    """Remember it, in one step. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, msgspec.json.encode(known))
