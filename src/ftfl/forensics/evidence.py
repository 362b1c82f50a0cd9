"""Numbers with their intervals, and what follows from them: the words all instruments share.

An instrument is a pure function that returns a `Result`: its numbers, and the findings that follow
from them. What it cannot measure it refuses with an `FtflError` of one sentence, which the caller
shows in place of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ftfl.errors import FtflError

CONFIDENCE = 0.95
REPETITIONS = 1000
"""Resamples of a bootstrap: the ends of a 95 % interval then rest on 25 draws each."""

Severity: TypeAlias = Literal["info", "warning", "failure"]
SEVERITIES: tuple[Severity, ...] = ("failure", "warning", "info")
"""The worst first, which is the order findings are shown in."""


@dataclass(frozen=True)
class Estimate:
    """A number from a sample, with the 95 % interval that the sample allows.

    The interval is (−inf, inf) where the sample says nothing about its own spread, for example
    with one row or with one episode whose rows depend on each other.
    """

    value: float
    low: float
    high: float
    n: int
    """Independent pieces the interval rests on: rows, or episodes where rows are clustered."""
    method: str
    """How the interval was made, in words."""

    def below(self, bound: float | int) -> bool:
        """The whole interval lies below ``bound``."""
        return self.high < bound

    def above(self, bound: float | int) -> bool:
        """The whole interval lies above ``bound``."""
        return self.low > bound

    def __str__(self) -> str:
        """Value and interval to three digits; an unbounded interval is named."""
        if math.isinf(self.low) or math.isinf(self.high):
            return f"{self.value:.3g} (no interval, n = {self.n})"
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


Number: TypeAlias = "Estimate | float | int | bool | None"
Numbers: TypeAlias = dict[str, Any]
"""Values of instruments by name: `Number`, a list of them (say one a dimension), or such a dict."""


@dataclass(frozen=True)
class Finding:
    """What an instrument says, why it may say so, and what to do about it."""

    name: str
    """Short and stable, words joined by hyphens, e.g. ``reward-starved``."""
    severity: Severity
    sentence: str
    """One sentence in plain words, with the decisive number in it."""
    evidence: Mapping[str, Estimate | float]
    threshold: str
    """The rule that was met, and why it stands where it stands."""
    advice: str
    """What to do, with the exact flag; empty where there is nothing to do."""

    def to_json(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return {
            "name": self.name,
            "severity": self.severity,
            "sentence": self.sentence,
            "evidence": plain(dict(self.evidence)),
            "threshold": self.threshold,
            "advice": self.advice,
        }


@runtime_checkable  # tests check annotations at run time
class Result(Protocol):
    """What every instrument returns: a frozen dataclass with these two methods."""

    def numbers(self) -> Numbers:
        """All that was measured, by name."""
        ...

    def findings(self) -> list[Finding]:
        """What follows from the numbers; empty if nothing does."""
        ...


def plain(value: Any) -> Any:
    """Numbers as strict JSON: estimates become objects, what is not finite becomes null."""
    if isinstance(value, Estimate):
        return {
            "value": plain(value.value),
            "low": plain(value.low),
            "high": plain(value.high),
            "n": value.n,
            "method": value.method,
        }
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def mean_estimate(samples: Sequence[float] | np.ndarray, clusters: Any = None) -> Estimate:
    """The mean of a sample with its t-interval.

    Args:
        samples: shape (N,).
        clusters: shape (N,), e.g. the episode of each row: rows of one cluster may depend on each
            other, so the interval rests on the spread between clusters (their residual sums, with
            clusters − 1 degrees of freedom). None: rows are independent.

    Raises:
        FtflError: the sample is empty or not finite.

    Source:
        Student 1908; Liang and Zeger 1986 for the clustered form (ratio of cluster sums).
    """
    values = _finite(np.asarray(samples, np.float64))
    mean = float(values.mean())
    labels = np.arange(values.size) if clusters is None else np.asarray(clusters)
    _, member = np.unique(labels, return_inverse=True)
    count = int(member.max()) + 1
    what = "rows" if clusters is None else "clusters"
    method = f"Student-t over {what}"
    if count < 2:
        return Estimate(mean, -math.inf, math.inf, count, method)
    from scipy.special import stdtrit  # a second sooner than scipy.stats

    residuals = np.bincount(member, weights=values - mean)
    error = math.sqrt(count / (count - 1) * float((residuals**2).sum())) / values.size
    half = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * error
    return Estimate(mean, mean - half, mean + half, count, method)


def bootstrap_estimate(
    samples: np.ndarray | tuple[np.ndarray, ...],
    statistic: Callable[..., float],
    seed: int,
    clusters: Any = None,
    repetitions: int = REPETITIONS,
) -> Estimate:
    """Any statistic of a sample with its percentile-bootstrap interval.

    Args:
        samples: one array, or several with the same first axis N that are resampled together.
        statistic: maps the (resampled) arrays to a number; a resample for which it is not finite
            is left out.
        seed: of the resampling.
        clusters: shape (N,): whole clusters (episodes) are resampled instead of rows.
        repetitions: number of resamples.

    Raises:
        FtflError: the sample is empty or not finite.

    Source:
        Efron 1979. Percentile intervals are too narrow below about ten clusters (with five, 90 %
        instead of 95 %); the estimate's ``n`` says how many there were.
    """
    arrays = samples if isinstance(samples, tuple) else (samples,)
    arrays = tuple(_finite(np.asarray(array)) for array in arrays)
    size = arrays[0].shape[0]
    labels = np.arange(size) if clusters is None else np.asarray(clusters)
    _, member = np.unique(labels, return_inverse=True)
    count = int(member.max()) + 1
    value = float(statistic(*arrays))
    method = f"bootstrap over {'rows' if clusters is None else 'clusters'}"
    if count < 2:
        return Estimate(value, -math.inf, math.inf, count, method)
    rows = [np.flatnonzero(member == i) for i in range(count)] if clusters is not None else None
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(repetitions):
        chosen = generator.integers(0, count, count)
        index = chosen if rows is None else np.concatenate([rows[i] for i in chosen])
        draws.append(float(statistic(*(array[index] for array in arrays))))
    finite = np.array(draws)[np.isfinite(draws)]
    if finite.size < 2:
        return Estimate(value, -math.inf, math.inf, count, method)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(finite, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), count, method)


def bootstrap_means(
    terms: np.ndarray,
    statistics: Callable[[np.ndarray], np.ndarray],
    seed: int,
    clusters: Any = None,
    repetitions: int = REPETITIONS,
) -> list[Estimate]:
    """Several statistics that depend on a sample through means of terms, resampled all at once.

    Args:
        terms: shape (N, S), for example columns x, y, x², xy for a regression.
        statistics: maps means of the terms, shape (R, S), to K statistics each, shape (R, K).
        seed, clusters, repetitions: as for `bootstrap_estimate`, whose intervals these are.

    Raises:
        FtflError: the sample is empty or not finite.
    """
    terms = _finite(np.asarray(terms, np.float64))
    labels = np.arange(len(terms)) if clusters is None else np.asarray(clusters)
    _, member = np.unique(labels, return_inverse=True)
    count = int(member.max()) + 1
    sums, sizes = np.zeros((count, terms.shape[1])), np.bincount(member)
    np.add.at(sums, member, terms)
    method = f"bootstrap over {'rows' if clusters is None else 'clusters'}"
    with np.errstate(divide="ignore", invalid="ignore"):
        values = statistics(terms.mean(axis=0)[None])[0]
        weights = np.random.default_rng(seed).multinomial(
            count, np.full(count, 1 / count), size=repetitions
        )
        draws = statistics(weights @ sums / (weights @ sizes)[:, None])
    tail = 100 * (1 - CONFIDENCE) / 2
    estimates = []
    for value, column in zip(values.tolist(), draws.T, strict=True):
        finite = column[np.isfinite(column)]
        low, high = -math.inf, math.inf
        if count > 1 and finite.size > 1:
            low, high = (float(x) for x in np.percentile(finite, [tail, 100 - tail]))
        estimates.append(Estimate(value, low, high, count, method))
    return estimates


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, the worst first; their order within a severity is kept."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _finite(values: np.ndarray) -> np.ndarray:
    if values.shape[0] == 0:
        raise FtflError("nothing was measured: the sample is empty.")
    if not np.isfinite(values).all():
        raise FtflError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} measured values are not finite:"
            " leave such rows out and count them."
        )
    return values
