"""lmms-eval's statistics under their own definitions, to compare with its reports.

medkit's intervals are those of ``medkit.evaluation.statistics``.

Source: lmms-eval 0.7, ``api.metrics``; Miller 2024, Adding Error Bars to Evals, sections 2 to 5.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats


def mean_stderr(scores: Sequence[float]) -> float:
    """Gives the standard error of a mean, with the sample's deviation; NaN for fewer than two scores."""
    array = np.asarray(scores, dtype=np.float64)
    return float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else math.nan


def clustered_stderr(scores: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Gives lmms-eval's clustered standard error: the cluster sums' part plus the variance of the mean.

    It has no G/(G-1) factor, and for one cluster only the second part is left, close to 0 and without meaning.

    Args:
        scores: [N].
        clusters: [N] cluster of each score.
    """
    array = np.asarray(scores, dtype=np.float64)
    count = len(array)
    if count < 2:
        return math.nan
    deviations = array - array.mean()
    sums: dict[Hashable, float] = defaultdict(float)
    for cluster, deviation in zip(clusters, deviations, strict=True):
        sums[cluster] += float(deviation)
    between = sum(total**2 for total in sums.values()) / count**2
    return math.sqrt(between + float(deviations @ deviations) / (count**2 * (count - 1)))


def paired_ttest(
    scores: Sequence[float], baseline: Sequence[float], confidence: float = 0.95
) -> dict[str, float]:
    """Gives the paired t-test of ``scores - baseline`` with its interval; p is 0 where all differ equally."""
    differences = np.asarray(scores, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    count, mean, error = len(differences), float(differences.mean()), mean_stderr(differences.tolist())
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    if error:
        t = mean / error
        p = float(2 * stats.t.sf(abs(t), count - 1))
    else:
        t, p = (math.copysign(math.inf, mean), 0.0) if mean else (0.0, 1.0)
    return {
        "mean_diff": mean,
        "se_diff": error,
        "ci_lower": mean - half,
        "ci_upper": mean + half,
        "t_stat": t,
        "p_value": p,
        "n": count,
    }


def power_analysis(
    effect_size: float,
    std_a: float | None = None,
    std_b: float | None = None,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
    correlation: float = 0.5,
    current_n: int | None = None,
) -> dict[str, float | int]:
    """Gives how many questions a paired comparison needs, and what a given number can see.

    Args:
        effect_size: Difference of means to see, in score units.
        std_a: Deviation of the first model's scores; 0.5 when left out.
        std_b: Deviation of the second's; the first's when left out.
        alpha: Two-sided error rate.
        power: Wanted chance to see the effect.
        correlation: Of the two models' scores over questions.
        current_n: Also say this number's power and smallest visible effect.
    """
    std_a = 0.5 if std_a is None else std_a
    std_b = std_a if std_b is None else std_b
    variance = std_a**2 + std_b**2 - 2 * correlation * std_a * std_b
    z = float(stats.norm.ppf(1 - alpha / 2))
    both = z + float(stats.norm.ppf(power))
    found: dict[str, float | int] = {
        "min_n": math.ceil(both**2 * variance / effect_size**2),
        "effect_size": effect_size,
        "std_a": std_a,
        "std_b": std_b,
        "alpha": alpha,
        "power": power,
        "correlation": correlation,
    }
    if current_n is not None:
        error = math.sqrt(variance / current_n)
        found["current_n"] = current_n
        found["current_power"] = round(float(stats.norm.sf(z - effect_size / error)), 4)
        found["min_detectable_effect"] = round(both * error, 4)
    return found


def repeat_stability(scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Gives what repeats of each question say.

    Args:
        scores: Of each question, its repeats' scores.

    Returns:
        ``expected_accuracy`` (mean of all repeats), ``consensus_accuracy`` (most repeats right),
        ``internal_variance`` (mean variance within a question), ``consistency_rate`` (all repeats equal).
    """
    rows = [np.asarray(row, dtype=np.float64) for row in scores if len(row)]
    return {
        "expected_accuracy": float(np.concatenate(rows).mean()),
        "consensus_accuracy": float(np.mean([row.mean() > 0.5 for row in rows])),
        "internal_variance": float(np.mean([row.var(ddof=1) if len(row) > 1 else 0.0 for row in rows])),
        "consistency_rate": float(np.mean([np.ptp(row) == 0 for row in rows])),
    }
