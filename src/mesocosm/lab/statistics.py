"""Estimates with 95 % intervals: bootstrap over seeds, Wilson for shares, exact for identities."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95
RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % interval; not a number where too few seeds give none."""

    estimate: float
    low: float
    high: float


def exact(value: float) -> Interval:
    """A number known without error."""
    return Interval(float(value), float(value), float(value))


def bootstrap(statistic: Callable[..., Any], *samples: ArrayLike, paired: bool = False) -> Interval:
    """Percentile bootstrap of `statistic(*samples)` over seeds.

    Args:
        statistic: takes arrays `[..., n]` and an `axis`, as `numpy.mean` does.
        paired: whether the i-th numbers of all samples come from one seed and are resampled together.
    """
    from scipy import stats

    arrays = [np.asarray(sample, dtype=float) for sample in samples]
    estimate = float(statistic(*arrays, axis=-1)) if all(map(len, arrays)) else float("nan")
    if any(len(a) < 2 for a in arrays):
        return Interval(estimate, float("nan"), float("nan"))
    # Times that were never reached are infinite.
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            arrays,
            statistic,
            n_resamples=RESAMPLES,
            confidence_level=LEVEL,
            paired=paired,
            method="percentile",
            vectorized=True,
            rng=np.random.default_rng(0),
        )
    ends = np.quantile(result.bootstrap_distribution, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return Interval(estimate, float(ends[0]), float(ends[1]))


def rank_correlation(x: ArrayLike, y: ArrayLike, axis: int = -1) -> np.ndarray:
    """Spearman's correlation along `axis`, of arrays that broadcast; 0 where one of them is constant.

    With an interval: `bootstrap(rank_correlation, x, y, paired=True)`.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=axis) for values in (x, y)]
    a, b = (rank - rank.mean(axis=axis, keepdims=True) for rank in ranks)
    norm = np.sqrt((a**2).sum(axis=axis) * (b**2).sum(axis=axis))
    return (a * b).sum(axis=axis) / np.maximum(norm, 1e-12)


def median(sample: ArrayLike) -> Interval:
    return bootstrap(np.median, sample)


def mean(sample: ArrayLike) -> Interval:
    return bootstrap(np.mean, sample)


def share(successes: int, total: int) -> Interval:
    """A share with its Wilson interval.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference
    """
    from scipy import stats

    if not total:
        return Interval(float("nan"), float("nan"), float("nan"))
    interval = stats.binomtest(int(successes), int(total)).proportion_ci(LEVEL, method="wilson")
    return Interval(successes / total, float(interval.low), float(interval.high))
