"""Everything a drift report is made from, asked of one gateway."""

from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from serving.cli.admin_address import find_admin
from serving.cli.client import AdminClient
from serving.cli.output import CommandError, Unreachable
from serving.cli.where import Where
from serving.config.problems import did_you_mean
from serving.control.admin.answers import DriftAnswer, Status
from serving.performance.report import PerformanceReport

__all__ = ["Findings", "gather"]

_SECONDS: Final = 180.0
"""Labels are joined with the log for each figure of performance."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What `sluice drift MODEL --json` prints.

    `performance` holds the answers of `/api/v1/performance` by what rows were told apart by;
    `sluice` is the gateway's version; `notes` say what could not be had.
    """

    model: str
    sluice: str
    drift: DriftAnswer
    performance: dict[str, PerformanceReport] = {}
    notes: list[str] = []


def gather(
    where: Where, model: str, *, version: str = "", role: str = "", by: tuple[str, ...]
) -> Findings:
    """Ask for a model's drift and performance.

    Args:
        where: which gateway.
        model: by name.
        version: only this one's; empty: all.
        role: only in this one; empty: any.
        by: ways to tell rows apart, of `/api/v1/performance`.

    Raises:
        Unreachable: no gateway answers.
        CommandError: it has no such model or version, or the model has no reference.
    """
    with AdminClient(find_admin(where), where.token(), seconds=_SECONDS) as client:
        status = client.get("/api/v1/status", Status)
        _check_names(status, model, version)
        place = quote(model, safe="")
        query = urlencode({"version": version, "role": role})
        drift = client.get(f"/api/v1/drift/{place}?{query}", DriftAnswer)
        if not drift.has_reference:
            raise CommandError(
                f"`{model}` has no reference that its traffic could be compared with",
                hint=f"`sluice drift freeze {model} --table FILE --out FILE` makes one; "
                "its `monitoring.reference` names the file",
            )
        performance: dict[str, PerformanceReport] = {}
        notes: list[str] = []
        for one in by:
            try:
                answer = client.get(f"/api/v1/performance/{place}?by={one}", PerformanceReport)
            except Unreachable:
                raise
            except CommandError as error:
                # Without slices, or without a log, there still is drift to tell of.
                if one == by[0]:
                    notes.append(f"no performance: {error.message}")
                    break
                continue
            performance[one] = _of(answer, version, role)
    return Findings(
        model=model, sluice=status.version, drift=drift, performance=performance, notes=notes
    )


def _check_names(status: Status, model: str, version: str) -> None:
    known = {one.model: [its.version for its in one.versions] for one in status.models}
    if model not in known:
        raise CommandError(f"the gateway has no model `{model}`", did_you_mean(model, known))
    if version and version not in known[model]:
        hint = did_you_mean(version, known[model])
        raise CommandError(f"`{model}` has no version `{version}`", hint)


def _of(report: PerformanceReport, version: str, role: str) -> PerformanceReport:
    """Only what is of a version and role; empty: of any."""

    def meant(one: str, its: str) -> bool:
        return version in ("", one) and role in ("", its)

    return msgspec.structs.replace(
        report,
        groups=[group for group in report.groups if meant(group.version, group.role)],
        slices=[one for one in report.slices if meant(one.version, one.role)],
    )
