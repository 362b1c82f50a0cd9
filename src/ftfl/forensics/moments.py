"""Spreads, correlations and ratios, with intervals that know what rows depend on each other.

Each statistic is a smooth function of means, so its error is, to first order, the mean of its
influence values (what each row pulls it by); those are given to `evidence.mean_estimate` with the
episodes as clusters. Positive statistics get their interval on a logarithmic scale, so that it
never reaches below zero.

Source: the delta method by influence functions (Hampel 1974), with clustered errors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ftfl.forensics.evidence import Estimate, mean_estimate


def std_estimate(samples: np.ndarray, clusters: Any = None) -> Estimate:
    """Standard deviation of ``samples`` (N,); of a constant it is 0 without an interval."""
    x = np.asarray(samples, np.float64)
    deviation = (x - x.mean()) ** 2
    variance = float(deviation.mean())
    if x.size == 0 or _constant(x, variance):
        return unknown(0.0, x.size, "constant in the sample")
    return positive(math.sqrt(variance), (deviation / variance - 1.0) / 2.0, clusters)


def correlation_estimate(first: np.ndarray, second: np.ndarray, clusters: Any = None) -> Estimate:
    """Pearson's correlation of two samples (N,); NaN where one of them is constant."""
    pair = [np.asarray(x, np.float64) for x in (first, second)]
    if any(_constant(x, float(x.var())) for x in pair):
        return unknown(math.nan, pair[0].size, "constant in the sample")
    a, b = ((x - x.mean()) / x.std() for x in pair)
    value = float(np.mean(a * b))
    found = mean_estimate(value + a * b - value * (a**2 + b**2) / 2.0, clusters)
    return Estimate(value, max(found.low, -1.0), min(found.high, 1.0), found.n, found.method)


def ratio_estimate(top: np.ndarray, bottom: np.ndarray, clusters: Any = None) -> Estimate:
    """Mean of ``top`` over mean of ``bottom``, both (N,) and never negative.

    Infinite without an interval where ``bottom`` is zero throughout.
    """
    a, b = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    upper, lower = float(a.mean()), float(b.mean())
    if lower == 0.0 or upper == 0.0:
        return unknown(math.inf if lower == 0.0 else 0.0, a.size, "zero in the whole sample")
    return positive(upper / lower, a / upper - b / lower, clusters)


def positive(value: float, relative_influence: np.ndarray, clusters: Any = None) -> Estimate:
    """A positive number whose logarithm each row pulls by ``relative_influence`` (N,)."""
    log = mean_estimate(relative_influence, clusters)
    with np.errstate(over="ignore"):
        low, high = (float(value * np.exp(bound)) for bound in (log.low, log.high))
    if math.isinf(log.high):
        low = -math.inf
    return Estimate(value, low, high, log.n, f"{log.method}, logarithmic")


def unknown(value: float, n: int, why: str) -> Estimate:
    """A number whose sample says nothing about its spread."""
    return Estimate(value, -math.inf, math.inf, n, why)


def _constant(x: np.ndarray, variance: float) -> bool:
    """Whether a spread is rounding: below one part in 10⁶ of the size, as the model counts it."""
    size = math.sqrt(float(np.mean(x**2))) if x.size else 0.0
    return math.sqrt(variance) <= 1e-6 * size
