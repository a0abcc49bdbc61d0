"""Is this window drawn like the reference? One column's counts in, a size and a p-value out.

Two tests share a column, because they see different things.

*The values.* Bins in which fewer than 5 rows are expected are pooled. Then, with shares q of n
window rows and p of m reference rows in J bins, PSI = Σ (q − p) ln(q / p), and if nothing changed
PSI · nm / (n + m) is close to χ² with J − 1 degrees of freedom (B. Yurdakul, "Statistical
properties of population stability index", 2018).

*What hardly ever occurs*: nulls, values never seen, numbers out of range, where so few are
expected that no large-sample formula holds. Fisher's exact test, for more of them only.

Traffic is not n independent rows: one client sends a batch of like people, one household comes
together. The window is therefore counted in blocks of time, and how much the blocks differ tells
how much a window would, in the manner of complex surveys: the eigenvalues δ of the design effect
have the mean φ ("overdispersion") and the effective number ν = (Σδ)²/Σδ² (J. N. K. Rao and
A. J. Scott, Annals of Statistics 12, 1984, second order), and because they are estimated from S
blocks the reference law is F with ν and ν(S − 1) degrees of freedom (D. R. Thomas and
J. N. K. Rao, JASA 82, 1987).

`docs/decisions.md` says what else was tried and how often each was wrong.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from serving.config.frozen_bins import FrozenColumn
from serving.drift.bins import Counts
from serving.drift.distributions import chi_square_tail, f_tail, more_than_expected

__all__ = [
    "LEAST_BLOCKS",
    "Comparison",
    "ReferenceCounts",
    "compare",
    "compare_columns",
    "dispersion",
    "q_values",
    "reference_counts",
    "unrest",
]

LEAST_EXPECTED: Final = 5.0
"""Rows expected in a bin for χ² to hold; the rule of thumb since Cochran (1954)."""

RARE_SHARE: Final = 0.1
"""Part of a column's error that the exact test may spend; the test of the values has the rest."""

LEAST_BLOCKS: Final = 8
"""From fewer blocks an overdispersion is a guess, and the reference's own is used alone."""

_Floats = NDArray[np.float64]


class ReferenceCounts(msgspec.Struct, frozen=True):
    """What a window is compared with.

    `counts` has shape [bins]; the first `special` bins are for what is no ordinary value.
    `ordered`: the other bins have neighbours. `seen_once` is expected in the bin `special - 1` on
    top of its count. `overdispersion` is what is known from the past; 1.0 nothing.
    """

    counts: Counts
    special: int
    ordered: bool
    seen_once: int = 0
    overdispersion: float = 1.0


def reference_counts(column: FrozenColumn) -> ReferenceCounts:
    """What a frozen column says to the tests."""
    return ReferenceCounts(
        np.array(column.counts, np.int64),
        len(column.special),
        column.kind == "numeric",
        column.seen_once,
        column.overdispersion,
    )


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One column of one window against the reference.

    `psi` is over pooled bins; `psi_star` without what chance alone would give. `statistic` is
    referred to F with `dof` and `dof_below` degrees of freedom (`dof_below` infinite: χ² / dof).
    `rare_p` is of the exact test, `p` of both together.
    """

    rows: int
    psi: float = 0.0
    psi_star: float = 0.0
    statistic: float = 0.0
    dof: float = 0.0
    dof_below: float = math.inf
    overdispersion: float = 1.0
    values_p: float = 1.0
    rare_p: float = 1.0
    p: float = 1.0


def compare_columns(
    references: Sequence[ReferenceCounts],
    columns: Sequence[Counts],
    least_effect: float = 1.0,
) -> list[Comparison]:
    """Compare a window with the reference, column by column.

    A column whose rare value is absent cannot show how bursty its traffic is, so each column is
    taken to be at least as overdispersed as the median one.

    Args:
        references: one a column.
        columns: likewise the window's counts, shape [blocks, bins], one row a stretch of time;
            one row alone if nothing is known about its course.
        least_effect: overdispersion assumed at least, such as `unrest` found before.
    """
    found = [_own_effect(one, blocks) for one, blocks in zip(references, columns, strict=True)]
    known = [effect for effect in found if effect is not None]
    typical = max(least_effect, float(np.median(known)) if known else 1.0)
    return [
        compare(one, blocks, max(typical, one.overdispersion))
        for one, blocks in zip(references, columns, strict=True)
    ]


def compare(reference: ReferenceCounts, blocks: Counts, least_effect: float = 1.0) -> Comparison:
    """Compare one column; see `compare_columns`.

    Args:
        reference: its counts.
        blocks: the window's counts, shape [blocks, bins].
        least_effect: overdispersion assumed at least.
    """
    window: Counts = blocks.sum(0)
    n, m = int(window.sum()), int(reference.counts.sum())
    if not n or not m:
        return Comparison(rows=n)
    least_effect = max(1.0, least_effect)
    common, rare = _groups(reference, n / m)
    effect = max(least_effect, _design_effect(blocks @ common)[0])
    if effect > 1:  # pool again, for as many rows as are independent
        common, _ = _groups(reference, n / effect / m)
    own, effective = _design_effect(blocks @ common)
    effect = max(effect, own)
    statistic, dof, below, values_p = _values(
        reference.counts @ common, window @ common / effect, effective
    )
    rare_p = _rare(reference, blocks, rare, least_effect)
    psi, psi_star = _size(reference.counts, window, np.column_stack((common, rare)), effect)
    return Comparison(
        rows=n,
        psi=psi,
        psi_star=psi_star,
        statistic=statistic,
        dof=dof,
        dof_below=below,
        overdispersion=effect,
        values_p=values_p,
        rare_p=rare_p,
        p=min(1.0, values_p / (1 - RARE_SHARE), rare_p / RARE_SHARE),
    )


def q_values(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (JRSS B 57, 1995), in the order given.

    Of the columns with q < α a share of at most α is expected to be false; if nothing changed
    at all, the chance of naming any is at most α.
    """
    number = len(p_values)
    q = [1.0] * number
    least = 1.0
    ranked = sorted(range(number), key=lambda position: p_values[position])
    for rank in range(number, 0, -1):
        position = ranked[rank - 1]
        least = min(least, p_values[position] * number / rank)
        q[position] = least
    return q


def unrest(references: Sequence[ReferenceCounts], columns: Sequence[Counts]) -> float:
    """By how much more than chance successive windows differ, in the median; 1.0 if by no more.

    It also sees what no window shows by itself: few clients who ask all through it. Steps from one
    window to the next, and their median, are taken because a drift is one step of many: it must
    not hide itself.

    Args:
        references: one a column.
        columns: likewise the windows' counts, shape [windows, bins], oldest first.
    """
    found = [_steps(*one) for one in zip(references, columns, strict=True)]
    known = [effect for effect in found if effect > 0]
    return max(1.0, float(np.median(known))) if known else 1.0


def _steps(reference: ReferenceCounts, windows: Counts) -> float:
    """The median step of one column in units of chance; 0 where there are too few."""
    windows = windows[windows.sum(1) > 0]
    n, m = int(windows.sum()), int(reference.counts.sum())
    if len(windows) < LEAST_BLOCKS or not n or not m:
        return 0.0
    common, _ = _groups(reference, n / len(windows) / m)
    grouped: Counts = windows @ common
    grouped = grouped[:, grouped.sum(0) > 0]
    sizes: Counts = grouped.sum(1)
    groups = grouped.shape[1]
    if groups < 2 or not sizes.all():
        return 0.0
    share: _Floats = grouped.sum(0) / grouped.sum()
    steps: _Floats = np.diff(grouped / sizes[:, None], axis=0)
    chance: _Floats = 1 / sizes[1:] + 1 / sizes[:-1]
    dof = groups - 1
    # The median of χ² is close to dof · (1 − 2 / (9 dof))³ (Wilson and Hilferty, 1931).
    middle = dof * (1 - 2 / (9 * dof)) ** 3
    return float(np.median((steps**2 / share).sum(1) / chance) / middle)


def dispersion(windows: Counts, reference: ReferenceCounts) -> float:
    """Overdispersion φ ≥ 1 of healthy windows among themselves, for `ReferenceCounts`.

    Args:
        windows: counts of past windows, shape [windows, bins].
        reference: says which bins are alike.
    """
    n, m = int(windows.sum()), int(reference.counts.sum())
    if len(windows) < LEAST_BLOCKS or not n or not m:
        return 1.0
    common, _ = _groups(reference, n / len(windows) / m)
    return max(1.0, _design_effect(windows @ common)[0])


def _groups(reference: ReferenceCounts, ratio: float) -> tuple[Counts, Counts]:
    """Pool bins for both tests; indicator matrices of shape [bins, groups] and [bins, 1]."""
    special = reference.special
    expected: list[float] = (reference.counts * ratio).tolist()
    order = list(range(special, len(expected)))
    if not reference.ordered:
        order.sort(key=expected.__getitem__)
    members: list[list[int]] = []
    rest: list[int] = []
    inside = 0.0
    for bin_ in order:
        rest.append(bin_)
        inside += expected[bin_]
        if inside >= LEAST_EXPECTED:
            members.append(rest)
            rest, inside = [], 0.0
    if rest:
        members[-1:] = [[*(members[-1] if members else []), *rest]]
    rare = []
    for bin_ in range(special):
        if expected[bin_] >= LEAST_EXPECTED:
            members.append([bin_])
        else:
            rare.append(bin_)
    return _indicators(members, len(expected)), _indicators([rare], len(expected))


def _indicators(members: list[list[int]], bins: int) -> Counts:
    matrix = np.zeros((bins, len(members)), np.int64)
    places = [(bin_, group) for group, inside in enumerate(members) for bin_ in inside]
    if places:
        matrix[tuple(zip(*places, strict=True))] = 1
    return matrix


def _psi(reference: Counts | _Floats, window: Counts | _Floats) -> float:
    half = 0.5 * len(reference)
    p: _Floats = (reference + 0.5) / (reference.sum() + half)
    q: _Floats = (window + 0.5) / (window.sum() + half)
    return float((q - p) @ np.log(q / p))


def _values(
    reference: Counts, window: _Floats, effective: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Statistic, both degrees of freedom, p-value; of as many rows as are independent."""
    n, m, most = float(window.sum()), int(reference.sum()), len(reference) - 1.0
    if not n or not m or most < 1:
        return 0.0, 0.0, math.inf, 1.0
    statistic = _psi(reference, window) * n * m / (n + m) / most
    dof, below = effective
    if math.isinf(below):
        return statistic, most, below, chi_square_tail(statistic * most, most)
    return statistic, dof, below, f_tail(statistic, dof, below)


def _own_effect(reference: ReferenceCounts, blocks: Counts) -> float | None:
    """The design effect that a column shows by itself; None where it cannot."""
    n, m = int(blocks.sum()), int(reference.counts.sum())
    if not n or not m:
        return None
    common, _ = _groups(reference, n / m)
    return _design_effect(blocks @ common)[0] or None


def _design_effect(blocks: Counts) -> tuple[float, tuple[float, float]]:
    """Mean design effect φ, and the degrees of freedom of F that go with it.

    `blocks` has shape [blocks, groups]. φ is 0 where there are too few blocks, or but one group
    that has rows.
    """
    sizes: Counts = blocks.sum(1)
    filled = sizes > 0
    blocks, sizes = blocks[filled], sizes[filled]
    total: Counts = blocks.sum(0)
    seen = total > 0
    number, groups, n = len(blocks), int(seen.sum()), int(total.sum())
    if number < LEAST_BLOCKS or groups < 2:
        return 0.0, (0.0, math.inf)
    share: _Floats = total[seen] / n
    apart: _Floats = blocks[:, seen] - np.outer(sizes, share)
    apart *= math.sqrt(number / (number - 1) / n) / np.sqrt(share)
    inner: _Floats = apart @ apart.T if number < groups else apart.T @ apart
    trace, squares = float(np.trace(inner)), float((inner * inner).sum())
    blocks_free = number - 1.0
    # Σδ² is too large by chance; unbiased for a Wishart matrix (M. S. Srivastava, 2005).
    factor = blocks_free**2 / ((blocks_free - 1) * (blocks_free + 2))
    squares = factor * (squares - trace**2 / blocks_free)
    most = groups - 1.0
    dof = min(most, max(1.0, trace**2 / squares)) if squares > 0 else most
    return trace / most, (dof, dof * blocks_free)


def _rare(reference: ReferenceCounts, blocks: Counts, rare: Counts, least_effect: float) -> float:
    """p-value of more rows than expected in the rare bins together."""
    inside: Counts = (blocks @ rare)[:, 0]
    found = int(inside.sum())
    if not found:
        return 1.0
    once = reference.seen_once if rare[reference.special - 1, 0] else 0
    expected = int((reference.counts @ rare)[0]) + once
    effect = max(least_effect, _index_of_dispersion(inside, blocks.sum(1)))
    n, m = int(blocks.sum()), int(reference.counts.sum())
    return more_than_expected(found, n, expected, m, effect)


def _index_of_dispersion(inside: Counts, sizes: Counts) -> float:
    """Variance over mean of counts, given each block's size; 1 for independent rows."""
    inside, sizes = inside[sizes > 0], sizes[sizes > 0]
    if len(inside) < LEAST_BLOCKS:
        return 1.0
    expected = sizes * (inside.sum() / sizes.sum())
    return float(((inside - expected) ** 2 / expected).sum() / (len(inside) - 1))


def _size(reference: Counts, window: Counts, groups: Counts, effect: float) -> tuple[float, float]:
    """PSI over pooled bins, and what of it is no noise."""
    p, q = reference @ groups, window @ groups
    used = (p > 0) | (q > 0)
    if used.sum() < 2:
        return 0.0, 0.0
    psi = _psi(p[used], q[used])
    noise = (int(used.sum()) - 1) * (effect / q.sum() + 1 / p.sum())
    return psi, max(0.0, psi - float(noise))
