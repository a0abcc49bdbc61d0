"""What a request for training says: a CloudEvent 1.0 in structured JSON."""

from typing import Final, Literal

import msgspec

from serving.control.cloud_event import CloudEvent, moment
from serving.control.monitoring.harm_state import Harm
from serving.drift.changes import Change
from serving.drift.verdict import Loss, Verdict

__all__ = [
    "TYPE",
    "EvidenceNumbers",
    "Period",
    "Results",
    "RetrainingData",
    "data_of",
    "event_of",
]

TYPE: Final = "dev.sluice.retraining.requested"


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """From `start` to `end`, RFC 3339 in UTC."""

    start: str
    end: str


class EvidenceNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """The loss now, beside that of the version's first labelled windows; and what ADWIN saw."""

    loss: Loss
    growth: float
    least_growth: float
    """Lower end of the growth's 95 % interval."""
    baseline: Period
    baseline_labels: int
    change: Change | None
    due: int
    coverage: float | None


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Where what comes of it goes."""

    ended: str
    """POST `{"improved": true}` or `false` here when the training is over."""
    candidate: str
    """POST `{"file": …, "version": …}` here to bring a model file back, as a shadow; or run"""
    command: str
    """this."""


class RetrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """`data` of the event. `evidence` is None if a person asked."""

    model: str
    version: str
    digest: str
    asked_by: str
    evidence_kind: Literal["realised", "estimated", "person"]
    reasons: list[str]
    labels: int
    evidence: EvidenceNumbers | None
    training_window: Period | None
    """From the version's first labelled window to now: the world as it was and as it is."""
    log: str
    """Folder of the prediction log, and of labels in `labels` below it."""
    results: Results


def event_of(identifier: str, *, source: str, at: float, data: RetrainingData) -> bytes:
    """Write the event; the same bytes are sent every time, however often that is.

    Args:
        identifier: unique; who gets it twice knows it by this.
        source: URI of the gateway's admin port.
        at: seconds since 1970.
        data: what is asked for, and why.
    """
    return msgspec.json.encode(
        CloudEvent(
            id=identifier, source=source, type=TYPE, subject=data.model, time=moment(at), data=data
        )
    )


def data_of(
    model: str,
    version: str,
    *,
    digest: str,
    asked_by: str,
    verdict: Verdict | None,
    words: str,
    harm: Harm | None,
    log: str,
    source: str,
    at: float,
) -> RetrainingData:
    """What is asked for, and why.

    Args:
        model: what is to be trained again.
        version: of production.
        digest: of that version's file; empty if there is none.
        asked_by: the monitoring, or a person.
        verdict: on production's traffic; None if a person asked.
        words: the person's reason.
        harm: how the version's losses stand; None if nothing is known.
        log: folder of the prediction log.
        source: URI of the gateway's admin port.
        at: seconds since 1970.
    """
    first = harm.baseline_start if harm is not None else None
    api = f"{source}/api/v1"
    return RetrainingData(
        model=model,
        version=version,
        digest=digest,
        asked_by=asked_by,
        evidence_kind=(verdict.evidence or "realised") if verdict is not None else "person",
        reasons=list(verdict.reasons) if verdict is not None else [words],
        labels=verdict.labels if verdict is not None else 0,
        evidence=_numbers_of(harm) if harm is not None else None,
        training_window=_period(first, at) if first is not None else None,
        log=log,
        results=Results(
            ended=f"{api}/retraining/{model}/ended",
            candidate=f"{api}/candidates/{model}",
            command=f"sluice candidate {model} FILE --version NAME --config DIR --apply",
        ),
    )


def _numbers_of(harm: Harm) -> EvidenceNumbers | None:
    """The numbers of a version's losses; None where there is nothing to compare."""
    loss = harm.realised
    if loss is None or harm.baseline_start is None or harm.baseline_end is None:
        return None
    return EvidenceNumbers(
        loss=loss,
        growth=loss.growth,
        least_growth=loss.least_growth,
        baseline=_period(harm.baseline_start, harm.baseline_end),
        baseline_labels=harm.baseline_labels,
        change=harm.change,
        due=harm.due,
        coverage=harm.coverage,
    )


def _period(start: float, end: float) -> Period:
    """Two moments, seconds since 1970."""
    return Period(start=moment(start), end=moment(end))
