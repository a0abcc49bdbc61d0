"""What is known beside the rules, from workers' reports, the quarantine and the evidence. Pure."""

from collections.abc import Sequence

import msgspec

from serving.config.keys import WorkerReport
from serving.control.fleet.workers import acknowledgements, is_settled, names_of, state_of
from serving.control.rollouts.observer import Seen
from serving.quarantine.decision import Quarantined
from serving.rollout.baking import Facts
from serving.rollout.state import RolloutState

__all__ = ["Heard", "facts_of", "is_everywhere"]


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """The workers' latest reports; the last ones known if the store does not answer."""

    reports: list[WorkerReport] = []
    store_up: bool = False


def is_everywhere(heard: Heard, revision: int, now: float) -> bool:
    """Whether every worker that lives serves `revision`. One that refused it does not."""
    if not heard.store_up:
        return False
    answers = acknowledgements(heard.reports, revision, now)
    return is_settled(answers) and not any(one.refused and not one.applied for one in answers)


def facts_of(
    state: RolloutState,
    seen: Seen,
    heard: Heard,
    *,
    quarantined: Sequence[Quarantined],
    last_data: float | None,
    acknowledged: bool,
    now: float,
) -> Facts:
    """Put together what one look needs.

    Args:
        state: the rollout.
        seen: the evidence.
        heard: of workers.
        quarantined: versions that crashed workers.
        last_data: when evidence last grew, seconds since 1970.
        acknowledged: whether what the events say is everywhere.
        now: seconds since 1970.
    """
    live = [report for report in heard.reports if state_of(report, now) != "silent"]
    return Facts(
        now=now,
        samples=seen.samples,
        production_samples=seen.production_samples,
        copies=seen.copies,
        keys=seen.keys,
        production_keys=seen.production_keys,
        labels=seen.labels,
        last_data=last_data,
        tripped=seen.tripped,
        quarantined=_quarantined(state, quarantined),
        not_ready=_not_ready(state, live),
        split=seen.split,
        acknowledged=acknowledged,
        store_up=heard.store_up,
        workers=len(live),
    )


def _quarantined(state: RolloutState, entries: Sequence[Quarantined]) -> str:
    key = (state.model, state.canary, state.canary_sha256)
    return next((one.reason for one in entries if one.key == key), "")


def _not_ready(state: RolloutState, live: Sequence[WorkerReport]) -> str:
    place, named = f"{state.model}/{state.canary}", names_of(live)
    for report in live:
        if place in report.not_ready and report.state != "draining":
            return f"{state.canary} in {named[report.key]}: {report.not_ready[place]}"
    return ""
