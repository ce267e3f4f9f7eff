"""Two models on the same questions: difference with interval, tests, Holm's correction, several seeds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from .intervals import CONFIDENCE, RESAMPLES, Interval, bootstrap_interval, by_group, wilson_interval


def paired_bootstrap(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Gives the mean of ``after - before`` over the same questions, with its clustered 95 % interval.

    When every difference is equal, the interval is Wilson's bound over groups on what was never seen: no
    change in 40 groups gives -0.088..0.088.

    Args:
        before: float, [N], scores of the first model.
        after: float, [N], scores of the second model on the same questions in the same order.
        groups: [N] cluster of each question; every question its own cluster when left out.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the lengths differ or are 0.

    Source: Koehn 2004, EMNLP, section 4 (paired bootstrap), here over clusters.
    """
    if len(before) != len(after):
        raise ValueError(f"paired scores need equal lengths, got {len(before)} and {len(after)}")
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    _, sizes = by_group(differences, groups)
    if len(sizes) > 1 and np.ptp(differences) > 0:
        return bootstrap_interval(differences, groups, resamples=resamples, seed=seed)
    value = float(differences.mean())
    unseen = float(wilson_interval(0, len(sizes))[1])
    return Interval(value, max(value - unseen, -1.0), min(value + unseen, 1.0))


def mcnemar_exact(wins: int, losses: int) -> float:
    """Gives the two-sided exact McNemar p-value from the discordant pairs; 1.0 when there are none.

    It takes questions as independent, so where questions share an image, read it beside the clustered
    interval.

    Args:
        wins: Questions that only the second model answers right.
        losses: Questions that only the first model answers right.

    Source: McNemar 1947, Psychometrika 12:153-157; exact form as a binomial test, Fagerland et al. 2013, BMC
    Medical Research Methodology 13:91, section "The McNemar exact conditional test".
    """
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(int(wins), int(wins + losses), 0.5).pvalue)


def paired_permutation(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    groups: Sequence[Hashable] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> float:
    """Gives the two-sided p-value of a paired test for scores that are not all 0 or 1.

    Under no difference the two models' scores of a whole group can be swapped, so the groups' differences get
    random signs. The observed arrangement counts as one of the resamples: the smallest value is
    1/(resamples+1).

    Args:
        before: float, [N], scores of the first model.
        after: float, [N], scores of the second model on the same questions in the same order.
        groups: [N] cluster of each question; every question its own cluster when left out.
        resamples: Number of random sign patterns.
        seed: Seed of the signs.

    Source: Good 2005, Permutation, Parametric and Bootstrap Tests of Hypotheses, section 3.7; Phipson and
    Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9:39 (the added one).
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    totals, _ = by_group(differences, groups)
    rng = np.random.Generator(np.random.PCG64(seed))
    rows = max(1, 4_000_000 // len(totals))
    reached = 0
    for start in range(0, resamples, rows):
        signs = rng.integers(2, size=(min(rows, resamples - start), len(totals))) * 2 - 1  # [R, G]
        reached += int((np.abs(signs @ totals) >= abs(totals.sum()) - 1e-9).sum())
    return (reached + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Gives the p-values adjusted for their number, in the given order; each at most 1.

    Calling those below 0.05 differences, the chance of one false call among all is at most 5 %, however the
    tests depend on each other.

    Source: Holm 1979, Scandinavian Journal of Statistics 6:65-70.
    """
    found = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(found, kind="stable")
    raised = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    adjusted = np.empty(len(found))
    adjusted[order] = np.minimum(raised, 1.0)
    return [float(value) for value in adjusted]


class Repeats(NamedTuple):
    """Several trainings of one recipe on the same questions.

    Attributes:
        mean: Mean over seeds and questions, with an interval for another seed and other questions.
        deviation: Standard deviation of the accuracy between seeds, from the seeds seen (n - 1).
        seeds: How many.
    """

    mean: Interval
    deviation: float
    seeds: int


def repeats(scores: np.ndarray, groups: Sequence[Hashable] | None = None) -> Repeats:
    """Gives the mean over seeds with an interval that covers the luck of training and of the questions.

    The variances of the two add up, as of two crossed random factors. The t quantile has Satterthwaite's
    degrees of freedom: with two or three seeds that makes the interval wide, as it should be.

    Args:
        scores: float, [S, N], scores in 0..1 of S >= 2 seeds on N questions in one order.
        groups: [N] cluster of each question; every question its own cluster when left out.

    Raises:
        ValueError: If there are fewer than two seeds or two groups.

    Source: Satterthwaite 1946, Biometrics Bulletin 2:110-114; Searle, Casella and McCulloch 1992, Variance
    Components, chapter 4 (crossed random factors).
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or len(scores) < 2:
        raise ValueError(f"repeats need scores of at least two seeds, [S, N], got shape {scores.shape}")
    totals, sizes = by_group(scores.mean(0), groups)
    count, seeds = len(sizes), len(scores)
    if count < 2:
        raise ValueError("repeats need questions of at least two groups")
    value = float(totals.sum() / sizes.sum())
    deviation = float(scores.mean(1).std(ddof=1))
    by_seed = np.array([by_group(row, groups)[0] for row in scores])  # [S, G]
    residuals = totals - value * sizes
    own = by_seed - scores.mean(1)[:, None] * sizes - residuals  # of one seed on one group
    scale = count / (count - 1) / sizes.sum() ** 2
    # Both the seeds' and the groups' spread hold the noise of single answers; it is taken off once.
    parts = np.array(
        [
            deviation**2 / seeds,
            scale * (residuals**2).sum(),
            -scale * (own**2).sum() / (seeds - 1) / seeds,
        ]
    )
    freedom = np.array([seeds - 1, count - 1, (seeds - 1) * (count - 1)])
    variance = max(parts.sum(), parts.max())
    if variance == 0:
        low, high = wilson_interval(value * count, count)
        return Repeats(Interval(value, float(low), float(high)), deviation, seeds)
    degrees = variance**2 / (parts**2 / freedom).sum()
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * np.sqrt(variance))
    return Repeats(Interval(value, max(value - half, 0.0), min(value + half, 1.0)), deviation, seeds)
