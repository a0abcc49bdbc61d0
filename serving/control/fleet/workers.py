"""What the workers' reports add up to; decides, does no I/O."""

from collections.abc import Iterable

import msgspec

from serving.config.keys import SILENT_SECONDS, WorkerReport

__all__ = [
    "FORGET_SECONDS",
    "Acknowledgement",
    "acknowledgements",
    "is_settled",
    "names_of",
    "state_of",
]

FORGET_SECONDS = 60.0
"""A worker silent for this long is removed from the store: it ended without saying so."""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker made of a revision. `applied`: it answers with it (or a later one)."""

    worker: str
    state: str
    revision: int
    applied: bool
    refused: str = ""


def state_of(report: WorkerReport, now: float) -> str:
    """The worker's state, or `silent`. `now` is wall-clock seconds; clocks may differ a little."""
    return "silent" if now - report.reported_at > SILENT_SECONDS else report.state


def names_of(reports: Iterable[WorkerReport]) -> dict[str, str]:
    """What to call each worker, by its key: its name, with its node's where there are several."""
    reports = list(reports)
    several = len({report.node for report in reports}) > 1
    return {
        report.key: f"{report.worker} on {report.node}" if several else report.worker
        for report in reports
    }


def acknowledgements(
    reports: Iterable[WorkerReport], revision: int, now: float
) -> list[Acknowledgement]:
    """Judge every worker that is still there."""
    reports = list(reports)
    named = names_of(reports)
    return [
        Acknowledgement(
            worker=named[report.key],
            state=state_of(report, now),
            revision=report.revision,
            applied=report.revision >= revision,
            refused=report.refused_reason if report.refused_revision >= revision else "",
        )
        for report in reports
        if state_of(report, now) != "silent"
    ]


def is_settled(answers: list[Acknowledgement]) -> bool:
    """Whether nobody is left to wait for: each has applied, refused, or is on its way out."""
    return all(answer.applied or answer.refused or answer.state == "draining" for answer in answers)
