"""Intervals for scores in 0..1 (or differences in -1..1), clustered by group.

Questions about one image or one patient succeed and fail together, so what is resampled is the group
(cluster), never the question. Everything is vectorised and seeded: equal input gives equal output.

How intervals behave at 0 and at 1: the bootstrap resamples what was seen, so when every score is equal it
collapses to a point (40 of 40 right would claim exactly 100 %). ``score_interval`` and ``paired_bootstrap``
therefore switch to Wilson's interval, counting each group once, when all values are equal: 40 of 40 gives
0.912..1. Close to the ends (one miss among hundreds) the percentile bootstrap stays inside [0, 1] but is a
little short on the side of the boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean with its interval, in the unit of the values.

    Attributes:
        value: The observed mean.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def score_interval(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | None = None, seed: int = 0
) -> Interval:
    """Gives the mean of scores in 0..1 with the interval that reports show.

    That is the clustered bootstrap, or Wilson's interval over groups when every group has the same mean or there
    is only one (then nothing is known about the spread between groups, and resampling would claim to be certain).

    Args:
        values: float, [N], each in 0..1.
        groups: [N] cluster of each value; every value its own cluster when left out.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are no values, or as many groups as values are not given.
    """
    totals, sizes = by_group(values, groups)
    value = float(totals.sum() / sizes.sum())
    if len(sizes) > 1 and np.ptp(totals / sizes) > 1e-12:
        return bootstrap_interval(values, groups, seed=seed)
    low, high = wilson_interval(value * len(sizes), len(sizes))
    return Interval(value, float(low), float(high))


def wilson_interval(
    successes: float | np.ndarray, count: float | np.ndarray, confidence: float = CONFIDENCE
) -> tuple[Any, Any]:
    """Gives Wilson's score interval of a proportion, without continuity correction; [0, 1] where count is 0.

    Args:
        successes: Number of successes, scalar or array of any shape; need not be whole.
        count: Number of trials, broadcast against ``successes``.
        confidence: Coverage, in (0, 1).

    Returns:
        Low and high, each of the broadcast shape (numpy float64).

    Source: Wilson 1927, JASA 22:209-212; Brown, Cai and DasGupta 2001, Statistical Science 16:101-133, eq. 4.
    """
    successes, count = np.broadcast_arrays(np.asarray(successes, float), np.asarray(count, float))
    z = stats.norm.ppf((1 + confidence) / 2)
    trials = np.where(count > 0, count, 1.0)
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    low = np.where(successes <= 0, 0.0, np.maximum(centre - half, 0.0))
    high = np.where(successes >= count, 1.0, np.minimum(centre + half, 1.0))
    return np.where(count > 0, low, 0.0)[()], np.where(count > 0, high, 1.0)[()]


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Gives the mean with its percentile bootstrap interval, whole groups resampled with replacement.

    The mean is over values (a group with more questions weighs more), so each resample is a ratio of sums.
    The percentiles are widened by the small-sample factor t * sqrt(G / (G - 1)) for G groups, without which
    twenty groups would cover about 92 % instead of 95 %. The interval is a point when all values are equal.

    Args:
        values: float, [N].
        groups: [N] cluster of each value; every value its own cluster when left out.
        resamples: Number of resamples.
        confidence: Coverage, in (0, 1).
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are no values, or as many groups as values are not given.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3; Field and Welsh 2007,
    JRSS B 69:369-390 (cluster bootstrap); Hesterberg 2015, The American Statistician 69:371-386, section 5.3
    (expanded percentile interval).
    """
    totals, sizes = by_group(values, groups)
    count = len(sizes)
    value = float(totals.sum() / sizes.sum())
    if count == 1:
        return Interval(value, value, value)
    means = _resampled_means(totals, sizes, resamples, seed)
    low, high = np.quantile(means, _tails(count, confidence))
    return Interval(value, float(low), float(high))


def ratio_interval(
    tops: Sequence[float] | np.ndarray,
    bottoms: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable],
    seed: int = 0,
) -> Interval | None:
    """Gives a ratio of means with its percentile bootstrap interval, whole groups resampled; None for one group.

    Args:
        tops: float, [N].
        bottoms: float, [N], above 0.
        groups: [N] cluster of each pair.
        seed: Seed of the resampling.
    """
    totals, _ = by_group(tops, groups)
    sizes, _ = by_group(bottoms, groups)
    count = len(totals)
    if count < 2:
        return None
    ratios = _resampled_means(totals, sizes, RESAMPLES, seed)
    low, high = np.quantile(ratios, _tails(count))
    return Interval(float(totals.sum() / sizes.sum()), float(low), float(high))


def sums_interval(
    rows: np.ndarray,
    function: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[Hashable],
    seed: int = 0,
) -> Interval | None:
    """Gives a number of a whole set (F1, BLEU) with its percentile bootstrap interval, whole groups resampled.

    Args:
        rows: float, [N, K]: what each item adds to the set's sums.
        function: Sums, float [R, K], to the number, [R].
        groups: [N] cluster of each item.
        seed: Seed of the resampling.

    Returns:
        None where nothing can be said of the spread: a single group, or every resample gives the same number.

    Raises:
        ValueError: If there are no rows, or as many groups as rows are not given.
    """
    totals = np.stack(
        [by_group(column, groups)[0] for column in np.asarray(rows, dtype=np.float64).T], axis=1
    )
    count = len(totals)
    if count < 2:
        return None
    rng = np.random.Generator(np.random.PCG64(seed))
    step = max(1, 4_000_000 // count)
    found = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, step):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(step, RESAMPLES - start))  # [R, G]
        found[start : start + len(drawn)] = function(drawn @ totals)
    if np.ptp(found) == 0:
        return None
    low, high = np.quantile(found, _tails(count))
    return Interval(float(function(totals.sum(0)[None])[0]), float(low), float(high))


def by_group(
    values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the sum and the number of the values of each group, each float64, [G], groups as first met.

    Raises:
        ValueError: If there are no values, or as many groups as values are not given.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"an interval needs a flat list of at least one value, got shape {array.shape}")
    if groups is None:
        return array, np.ones(array.size)
    if len(groups) != array.size:
        raise ValueError(f"an interval needs a group for each value, got {len(groups)} for {array.size}")
    numbers: dict[Hashable, int] = {}
    index = np.fromiter((numbers.setdefault(group, len(numbers)) for group in groups), dtype=np.int64)
    return np.bincount(index, weights=array), np.bincount(index).astype(np.float64)


def _tails(count: int, confidence: float = CONFIDENCE) -> list[float]:
    """Gives the two quantiles to take for so many groups, widened by t * sqrt(G / (G - 1))."""
    widened = np.sqrt(count / (count - 1)) * stats.t.ppf((1 - confidence) / 2, count - 1)
    tail = float(stats.norm.cdf(widened))
    return [tail, 1 - tail]


def _resampled_means(totals: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(seed))
    count = len(sizes)
    rows = max(1, 4_000_000 // count)  # 32 MB of picks at a time, whatever the number of groups
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        picks = rng.integers(count, size=(min(rows, resamples - start), count))  # [R, G]
        means[start : start + len(picks)] = totals[picks].sum(1) / sizes[picks].sum(1)
    return means
