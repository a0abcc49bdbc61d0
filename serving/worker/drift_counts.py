"""Counts what the prediction log is shown, by the bins of each model's reference."""

import logging
from pathlib import Path
from weakref import WeakKeyDictionary

from serving.config.frozen_bins import digest_of
from serving.drift.bins import Counts
from serving.drift.counting import Counting
from serving.drift.counts_file import CountKey, CountsFile
from serving.recording.gathered import Gathered
from serving.recording.row_plan import RowPlan

__all__ = ["DriftCounts"]

_LOG = logging.getLogger("drift")


class DriftCounts:
    """An observer of the log; every call is in the writing thread.

    The counts of a worker that cannot have a file are lost, and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self._file: CountsFile | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = CountsFile(path)
        except OSError as error:
            _LOG.warning("drift is not counted by this worker: %s", error)
        # By plan and role. A plan goes with its table, and its counting with the plan.
        self._known: WeakKeyDictionary[RowPlan, dict[str, tuple[Counting, Counts]]]
        self._known = WeakKeyDictionary()

    def __call__(self, gathered: Gathered) -> None:
        """Count requests, if they were answered."""
        plan, role = gathered.plan, gathered.role
        if plan.reference is None or self._file is None or not gathered.fine:
            return
        known = self._known.setdefault(plan, {}).get(role)
        if known is None:
            counting = Counting(plan.reference, plan)
            digest = digest_of(plan.reference)
            key = CountKey(plan.model, plan.version, role, digest, counting.layout)
            known = self._known[plan][role] = counting, self._file.vector(key)
        counting, vector = known
        vector += counting.count(gathered)

    def close(self) -> None:
        """Let the file go; its counts stay."""
        self._known.clear()
        if self._file is not None:
            self._file.close()
