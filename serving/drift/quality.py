"""Is the data sound? Shares of rows that something is wrong with, against the reference's.

A value that comes from a default looks like drift and is none: the store had nothing. So a
column is judged only by the rows whose view served it, and what the views did is judged by itself.

    view     NOT_FOUND, NULLS, DEFAULTED, TIMEOUT, SCHEMA; stale (older than `fresh_for`)
    column   missing, nonfinite, out of range, new values; of another type than the reference

A share counts as worse if Fisher's exact test with Benjamini and Hochberg's correction says so,
and it is larger by `min_share`: much traffic proves a millionth, which nobody can mend.
"""

from collections.abc import Iterator, Mapping
from typing import Final, Literal

import msgspec

from serving.config.frozen_bins import FrozenColumn, Reference, ValueType
from serving.drift.bins import Counts
from serving.drift.distributions import more_than_expected
from serving.drift.statistics import q_values

__all__ = ["Finding", "Quality", "Traffic", "ViewTraffic", "assess", "is_served"]

FindingKind = Literal[
    "not_found", "nulls", "defaulted", "timeout", "schema", "stale",
    "missing", "nonfinite", "out_of_range", "new", "type",
]  # fmt: skip

_UNSERVED: Final[dict[str, FindingKind]] = {
    "NOT_FOUND": "not_found",
    "NULLS": "nulls",
    "DEFAULTED": "defaulted",
    "TIMEOUT": "timeout",
    "SCHEMA": "schema",
}
_WORDS: Final[dict[FindingKind, str]] = {
    "not_found": "the store has no row",
    "nulls": "a field is null in the store",
    "defaulted": "a default stands for a value",
    "timeout": "the store did not answer in time",
    "schema": "the stored row has another schema",
    "stale": "older than fresh_for",
    "missing": "missing",
    "nonfinite": "infinite",
    "out_of_range": "outside the reference's range",
    "new": "a value the reference never had",
    "type": "another type than the reference",
}
_BINS: Final[dict[str, FindingKind]] = {
    "missing": "missing",
    "nonfinite": "nonfinite",
    "below": "out_of_range",
    "above": "out_of_range",
    "new": "new",
}


def is_served(status: str) -> bool:
    """Whether a view's status, such as `STALE|CACHED`, means that the stored values were used."""
    return not any(word in _UNSERVED for word in status.split("|"))


class ViewTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """One feature view in a window. `statuses`: rows by status, words joined by `|`."""

    statuses: Mapping[str, int]
    aged: int = 0
    """Rows whose values' age is known …"""
    older: int = 0
    """… and those of them older than the view's `fresh_for`."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What a window says about its data.

    `columns` holds counts [bins] of the rows whose view served them (`is_served`), and of columns
    that come from no view of all rows. `types`: what a column's values were, where it is known.
    """

    views: Mapping[str, ViewTraffic] = {}
    columns: Mapping[str, Counts] = {}
    types: Mapping[str, ValueType] = {}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One share that is worse than the reference's."""

    subject: str
    kind: FindingKind
    rows: int
    share: float
    expected: float
    q: float
    words: str


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the data can be trusted, and what is wrong with it, worst first."""

    broken: bool
    findings: list[Finding]
    words: str


class _Check(msgspec.Struct, frozen=True):
    subject: str
    kind: FindingKind
    found: int
    rows: int
    expected: int
    reference_rows: int


def assess(
    reference: Reference,
    traffic: Traffic,
    *,
    alpha: float = 0.01,
    min_share: float = 0.01,
    overdispersion: float = 1.0,
) -> Quality:
    """Judge a window's data.

    Args:
        reference: what is usual.
        traffic: the window.
        alpha: chance of any finding although nothing is wrong.
        min_share: growth of a share that is worth mending.
        overdispersion: of the window's traffic, such as the drift report found.
    """
    checks = [*_view_checks(reference, traffic), *_column_checks(reference, traffic)]
    q = q_values([_p_value(check, max(1.0, overdispersion)) for check in checks])
    findings = [
        *_type_findings(reference, traffic),
        *(
            _finding(check, value)
            for check, value in zip(checks, q, strict=True)
            if value < alpha and _growth(check) >= min_share
        ),
    ]
    findings.sort(key=lambda one: (one.kind != "type", one.expected - one.share, one.subject))
    if not findings:
        return Quality(broken=False, findings=[], words=f"{len(checks)} checks, nothing wrong")
    worst = findings[0]
    more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
    words = f"{worst.subject}: {worst.words}{more}"
    return Quality(broken=True, findings=findings, words=words)


def _view_checks(reference: Reference, traffic: Traffic) -> Iterator[_Check]:
    for name, view in traffic.views.items():
        rows = sum(view.statuses.values())
        usual = reference.statuses.get(name) or {"OK": reference.rows}
        usual_rows = sum(usual.values())
        for word, kind in _UNSERVED.items():
            found, expected = _with(view.statuses, word), _with(usual, word)
            yield _Check(f"view `{name}`", kind, found, rows, expected, usual_rows)
        stale = _with(usual, "STALE")
        yield _Check(f"view `{name}`", "stale", view.older, view.aged, stale, usual_rows)


def _with(statuses: Mapping[str, int], word: str) -> int:
    return sum(rows for status, rows in statuses.items() if word in status.split("|"))


def _column_checks(reference: Reference, traffic: Traffic) -> Iterator[_Check]:
    for name, counts in traffic.columns.items():
        column = reference.columns.get(name)
        if column is None:
            continue
        for kind in dict.fromkeys(_BINS[one] for one in column.special if one in _BINS):
            bins = [i for i, one in enumerate(column.special) if _BINS.get(one) == kind]
            expected = sum(column.counts[i] for i in bins)
            expected += column.seen_once if kind == "new" else 0
            found, rows = int(counts[bins].sum()), int(counts.sum())
            yield _Check(f"column `{name}`", kind, found, rows, expected, column.rows)


def _type_findings(reference: Reference, traffic: Traffic) -> Iterator[Finding]:
    for name, kind in traffic.types.items():
        column = reference.columns.get(name)
        if column is not None and not _alike(column, kind):
            yield Finding(
                subject=f"column `{name}`",
                kind="type",
                rows=int(traffic.columns[name].sum()) if name in traffic.columns else 0,
                share=1.0,
                expected=0.0,
                q=0.0,
                words=f"{_WORDS['type']}: {kind} instead of {column.type}",
            )


def _alike(column: FrozenColumn, kind: ValueType) -> bool:
    """Numbers are numbers: a model that takes floats gets integers as floats."""
    return (column.type == "string") == (kind == "string")


def _p_value(check: _Check, effect: float) -> float:
    if not check.rows or not check.reference_rows:
        return 1.0
    return more_than_expected(check.found, check.rows, check.expected, check.reference_rows, effect)


def _growth(check: _Check) -> float:
    if not check.rows or not check.reference_rows:
        return 0.0
    return check.found / check.rows - check.expected / check.reference_rows


def _finding(check: _Check, q: float) -> Finding:
    share, expected = check.found / check.rows, check.expected / check.reference_rows
    return Finding(
        subject=check.subject,
        kind=check.kind,
        rows=check.rows,
        share=share,
        expected=expected,
        q=q,
        words=f"{_WORDS[check.kind]} in {share:.1%} of rows (usually {expected:.1%})",
    )
