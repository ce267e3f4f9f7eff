"""Whether a model knows when it is right: calibration and selective accuracy from token probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .intervals import wilson_interval

BINS = 10
COVERAGES = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def calibration(
    confidence: Sequence[float] | np.ndarray, correct: Sequence[float] | np.ndarray, bins: int = BINS
) -> dict[str, Any]:
    """Compares how sure a model is with how often it is right.

    Bins are of equal width, (low, high], the first one with 0. A bin's interval is Wilson's.

    Args:
        confidence: float, [N], in 0..1.
        correct: float, [N], scores in 0..1.
        bins: Number of bins.

    Returns:
        ``ece`` (the mean distance of confidence and accuracy, bins weighted by count), ``mce`` (the largest),
        ``brier``, ``confidence`` and ``accuracy`` (means), ``count``, and ``bins`` (those with answers) of
        ``{low, high, count, confidence, accuracy, accuracy_low, accuracy_high}``.

    Raises:
        ValueError: If there is nothing, the lengths differ or a confidence is not in 0..1.

    Source: Guo et al. 2017, ICML, equation 3 (ECE); Brier 1950, Monthly Weather Review 78:1-3.
    """
    sure, right = _pairs(confidence, correct)
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    filled = np.flatnonzero(counts)
    means = np.bincount(place, weights=sure, minlength=bins)[filled] / counts[filled]
    rights = np.bincount(place, weights=right, minlength=bins)[filled]
    accuracies = rights / counts[filled]
    lows, highs = wilson_interval(rights, counts[filled])
    gaps = np.abs(means - accuracies)
    return {
        "ece": float((gaps * counts[filled]).sum() / len(sure)),
        "mce": float(gaps.max()),
        "brier": float(((sure - right) ** 2).mean()),
        "confidence": float(sure.mean()),
        "accuracy": float(right.mean()),
        "count": len(sure),
        "bins": [
            {
                "low": float(number / bins),
                "high": float((number + 1) / bins),
                "count": int(counts[number]),
                "confidence": float(means[row]),
                "accuracy": float(accuracies[row]),
                "accuracy_low": float(lows[row]),
                "accuracy_high": float(highs[row]),
            }
            for row, number in enumerate(filled)
        ],
    }


def selective_accuracy(
    confidence: Sequence[float] | np.ndarray,
    correct: Sequence[float] | np.ndarray,
    coverages: Sequence[float] = COVERAGES,
) -> dict[str, Any]:
    """Gives the accuracy of answering only the questions that the model is surest of.

    Questions of equal confidence count with their mean, so the order in a file changes nothing.

    Args:
        confidence: float, [N], in 0..1.
        correct: float, [N], scores in 0..1.
        coverages: Shares of the questions to be answered, in (0, 1].

    Returns:
        ``at`` of ``{coverage, count, accuracy, threshold}`` (the least confidence answered; ``count`` is
        rounded up), and ``area``, the mean accuracy over all coverages 1/N..1 (1 minus it is the area under
        the risk-coverage curve).

    Raises:
        ValueError: As ``calibration``, or if a coverage is not in (0, 1].

    Source: Geifman and El-Yaniv 2017, NeurIPS, section 2; Geifman et al. 2019, ICLR (AURC).
    """
    sure, right = _pairs(confidence, correct)
    if not all(0 < share <= 1 for share in coverages):
        raise ValueError(f"a coverage must be in (0, 1], got {list(coverages)}")
    order = np.argsort(-sure, kind="stable")
    sorted_sure = sure[order]
    _, place = np.unique(-sorted_sure, return_inverse=True)
    tied = np.bincount(place, weights=right[order]) / np.bincount(place)
    accuracy = np.cumsum(tied[place]) / np.arange(1, len(sure) + 1)
    counts = [int(np.ceil(share * len(sure) - 1e-9)) for share in coverages]
    return {
        "at": [
            {
                "coverage": share,
                "count": count,
                "accuracy": float(accuracy[count - 1]),
                "threshold": float(sorted_sure[count - 1]),
            }
            for share, count in zip(coverages, counts, strict=True)
        ],
        "area": float(accuracy.mean()),
    }


def _pairs(
    confidence: Sequence[float] | np.ndarray, correct: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    sure, right = (np.asarray(values, dtype=np.float64) for values in (confidence, correct))
    if sure.ndim != 1 or not sure.size or sure.shape != right.shape:
        raise ValueError(f"needs a confidence for each score, got shapes {sure.shape} and {right.shape}")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("confidences must be in 0..1")
    return sure, right
