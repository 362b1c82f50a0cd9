"""A mean over seeds is never shown without what it is made of: n, an interval, the extremes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95

METHOD = "Student-t 95 % interval of the mean across seeds"
"""How intervals are named wherever one is shown."""

SMALLEST_BAND = 3
"""Fewest seeds a figure draws a band for.

With two seeds the interval is 12.7 times as wide as the distance between them. A table can say
that in a number; in a figure it would only hide the seeds, which are drawn anyway.
"""


@dataclass(frozen=True)
class Summary:
    """Seeds of one arm in one number; only finite values are counted in ``n``."""

    n: int
    missing: int
    """Seeds without a finite value: they are not in the mean and must be named beside it."""
    mean: float
    half_width: float | None
    """Half of the interval around ``mean``; None with fewer than two seeds."""
    smallest: float
    largest: float


def t_half_width(values: np.ndarray, confidence: float = CONFIDENCE) -> np.ndarray | None:
    """Half-width of the t-interval of the mean over the first axis; None below two rows.

    Args:
        values: shape (n, ...), one row a seed, assumed independent and near normal. NaN stays NaN.
        confidence: coverage, between 0 and 1.

    Source:
        Student 1908: t quantile with n − 1 degrees of freedom times the standard error.
    """
    n = values.shape[0]
    if n < 2:
        return None
    from scipy.stats import t

    quantile = float(t.ppf(0.5 + confidence / 2, n - 1))
    return quantile * values.std(axis=0, ddof=1) / math.sqrt(n)


def summarise(values: Iterable[float]) -> Summary:
    """Mean, interval and extremes over seeds, one value a seed; NaN counts as missing."""
    given = np.array(list(values), np.float64)
    finite = given[np.isfinite(given)]
    missing = given.size - finite.size
    if finite.size == 0:
        return Summary(0, missing, math.nan, None, math.nan, math.nan)
    half = t_half_width(finite)
    return Summary(
        n=finite.size,
        missing=missing,
        mean=float(finite.mean()),
        half_width=None if half is None else float(half),
        smallest=float(finite.min()),
        largest=float(finite.max()),
    )
