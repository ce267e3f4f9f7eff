"""How large a difference a benchmark can show, and how many questions a given difference needs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

from .intervals import by_group

ALPHA, POWER = 0.05, 0.8


def questions_needed(
    difference: float,
    discordant: float,
    *,
    design: float = 1.0,
    power: float = POWER,
    alpha: float = ALPHA,
) -> int:
    """Gives how many questions both models must answer for a paired test to see a difference.

    Args:
        difference: The difference of accuracies to be seen, for example 0.03; its sign does not matter.
        discordant: Share of the questions that just one of the models gets right, at least ``difference``;
            for graded scores, the mean squared difference.
        design: ``design_effect`` of the differences: what sharing images costs.
        power: Chance of seeing it.
        alpha: Two-sided level of the test.

    Raises:
        ValueError: If there is no difference to be seen, or fewer questions differ than it needs.

    Source: Connor 1987, Biometrics 43:207-211; Kish 1965, Survey Sampling, section 5.4 (design effect).
    """
    difference = abs(difference)
    if not 0 < difference <= 1 or not difference <= discordant <= 1:
        raise ValueError(f"needs 0 < difference <= discordant <= 1, got {difference} and {discordant}")
    root = _quantile(1 - alpha / 2) * math.sqrt(discordant)
    root += _quantile(power) * math.sqrt(discordant - difference**2)
    return math.ceil(design * (root / difference) ** 2 - 1e-9)


def power_of(
    count: int, difference: float, discordant: float, *, design: float = 1.0, alpha: float = ALPHA
) -> float:
    """Gives the chance that a paired test on ``count`` questions sees a difference; see ``questions_needed``."""
    difference = abs(difference)
    reached = difference * math.sqrt(count / design) - _quantile(1 - alpha / 2) * math.sqrt(discordant)
    return float(stats.norm.cdf(reached / math.sqrt(max(discordant - difference**2, 1e-12))))


def detectable(
    count: int, discordant: float, *, design: float = 1.0, power: float = POWER, alpha: float = ALPHA
) -> float:
    """Gives the smallest difference that ``count`` questions show with the given power, in 0..discordant.

    Where even a difference of all discordant questions stays unseen, that is ``discordant`` itself.
    """
    low, high = 0.0, float(discordant)
    for _ in range(60):
        middle = (low + high) / 2
        enough = power_of(count, middle, discordant, design=design, alpha=alpha) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def design_effect(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | None = None) -> float:
    """Gives by what the variance of a mean grows because questions share images: 1 where they don't.

    Never below 1 here, so that a chance pattern of few groups does not promise more than there is.

    Args:
        values: float, [N], scores, or differences of two models' scores.
        groups: [N] cluster of each value.
    """
    totals, sizes = by_group(values, groups)
    array = np.asarray(values, dtype=np.float64)
    spread = ((array - array.mean()) ** 2).sum()
    if len(sizes) < 2 or spread == 0:
        return 1.0
    clustered = ((totals - array.mean() * sizes) ** 2).sum() * len(sizes) / (len(sizes) - 1)
    return max(1.0, float(clustered / (spread * len(array) / (len(array) - 1))))


def _quantile(share: float) -> float:
    return float(stats.norm.ppf(share))
