"""Three tail probabilities, so that a gateway needs no scipy.

Formulas: NIST Digital Library of Mathematical Functions (dlmf.nist.gov), sections named below.
Relative accuracy is about 1e-12; the tests hold each against scipy.
"""

import math
from typing import Final

__all__ = ["chi_square_tail", "f_tail", "more_than_expected"]

_TINY: Final = 1e-300
_PRECISION: Final = 1e-15
_MOST_TERMS: Final = 10_000


def chi_square_tail(statistic: float, dof: float) -> float:
    """P(χ² ≥ statistic) with `dof` degrees of freedom, which need not be whole."""
    if statistic <= 0:
        return 1.0
    shape, x = dof / 2, statistic / 2
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:  # DLMF 8.7.1, the series of the lower function
        term = total = 1 / shape
        for k in range(1, _MOST_TERMS):
            term *= x / (shape + k)
            total += term
            if term < total * _PRECISION:
                break
        return max(0.0, 1 - scale * total)
    # DLMF 8.9.2, the continued fraction of the upper one, by Lentz's method
    b = x + 1 - shape
    c, d = 1 / _TINY, 1 / b
    fraction = d
    for k in range(1, _MOST_TERMS):
        a = -k * (k - shape)
        b += 2
        d = 1 / _away_from_zero(a * d + b)
        c = _away_from_zero(b + a / c)
        fraction *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return min(1.0, scale * fraction)


def f_tail(statistic: float, above: float, below: float) -> float:
    """P(F ≥ statistic) with `above` and `below` degrees of freedom, which need not be whole."""
    if statistic <= 0:
        return 1.0
    return _incomplete_beta(below / 2, above / 2, below / (below + above * statistic))


def more_than_expected(
    count: int, rows: int, reference_count: int, reference_rows: int, effect: float = 1.0
) -> float:
    """P(as many or more of `rows` fall in a bin), given the totals of window and reference.

    The upper tail of the hypergeometric distribution (Fisher's exact test, one side): exact for
    exchangeable rows however few they are, the reference's own chance included. 1.0 up to the
    expected count.

    Args:
        count: rows of the window in the bin.
        rows: all of them.
        reference_count: rows of the reference in the bin.
        reference_rows: all of them.
        effect: so many rows are worth one (overdispersion). A count that is then not whole lies
            between its neighbours, on a logarithmic scale.
    """
    if count <= 0 or count * reference_rows <= reference_count * rows:
        return 1.0
    rows, reference_rows = max(1, round(rows / effect)), max(1, round(reference_rows / effect))
    reference_count = min(reference_rows, round(reference_count / effect))
    worth = min(count / effect, rows)
    low = math.floor(worth)
    part = worth - low
    below = _hypergeometric_tail(low, rows, reference_count, reference_rows)
    if not part:
        return below
    above = _hypergeometric_tail(low + 1, rows, reference_count, reference_rows)
    if not above:
        return 0.0
    return math.exp((1 - part) * math.log(below) + part * math.log(above))


def _hypergeometric_tail(count: int, rows: int, reference_count: int, reference_rows: int) -> float:
    """P(X ≥ count): of `count + reference_count` balls, how many are among the window's rows."""
    if count <= 0:
        return 1.0
    marked = count + reference_count
    if count > rows:
        return 0.0
    term = math.exp(
        _log_choose(rows, count)
        + _log_choose(reference_rows, reference_count)
        - _log_choose(rows + reference_rows, marked)
    )
    total = 0.0
    for k in range(count, min(rows, marked) + 1):
        total += term
        if term < total * _PRECISION:
            break
        left = reference_rows - marked + k + 1
        term *= (rows - k) * (marked - k) / ((k + 1) * left)
    return min(1.0, total)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function; DLMF 8.17.22, by Lentz's method."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly: DLMF 8.17.4
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    scale = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for k in range(1, _MOST_TERMS):
        even = k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))
        odd = -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        step = 1.0
        for coefficient in (even, odd):
            d = 1 / _away_from_zero(1 + coefficient * d)
            c = _away_from_zero(1 + coefficient / c)
            step = c * d
            fraction *= step
        if abs(step - 1) < _PRECISION:
            break
    return scale * fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
