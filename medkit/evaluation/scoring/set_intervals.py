"""Intervals of numbers that exist for a set of answers only (F1, MME points), by resampling the set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from .profile import CorpusScores, Item, Sums

RESAMPLES = 200
CONFIDENCE = 0.95


def set_intervals(
    entry: CorpusScores, members: Sequence[Item], values: Mapping[str, float], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Gives ``{low, high}`` of every number of a set, whole groups resampled with replacement.

    The interval is the value plus and minus t times the deviation between resamples, and never beyond what a
    resample reached. It is a standard-error interval and not one of percentiles because 200 resamples are few:
    each may cost what the number itself does.

    Args:
        entry: The set's numbers.
        members: Its items; those with one ``group`` stay together.
        values: The numbers of the whole set.
        seed: Seed of the resampling.

    Returns:
        Name to interval; nothing for a single group, nor for a number that some resample does not have or that is
        the same in all (a point would claim to be certain).

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 12.2 (standard-error interval).
    """
    groups: dict[str, list[Item]] = {}
    for item in members:
        groups.setdefault(item.group, []).append(item)
    parts = list(groups.values())
    if len(parts) < 2:
        return {}
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(RESAMPLES):
        picks = rng.integers(len(parts), size=len(parts)).tolist()
        for name, value in entry.function(_taken(parts, picks)).items():
            if name in drawn and not isinstance(value, Sums) and np.isfinite(value):
                drawn[name].append(value)
    wide = stats.t.ppf((1 + CONFIDENCE) / 2, len(parts) - 1) * np.sqrt(len(parts) / (len(parts) - 1))
    found = {}
    for name, seen in drawn.items():
        if len(seen) == RESAMPLES and np.ptp(seen) > 0:
            half = float(wide * np.std(seen, ddof=1))
            low, high = min(*seen, values[name]), max(*seen, values[name])
            found[name] = {"low": max(values[name] - half, low), "high": min(values[name] + half, high)}
    return found


def _taken(parts: Sequence[Sequence[Item]], picks: Sequence[int]) -> list[Item]:
    """Gives the items of the groups picked; a group that is picked again counts as other pictures."""
    times: dict[int, int] = {}
    taken: list[Item] = []
    for pick in picks:
        again = times[pick] = times.get(pick, -1) + 1
        taken += (
            [replace(item, image=f"{item.image}#{again}") for item in parts[pick]] if again else parts[pick]
        )
    return taken
