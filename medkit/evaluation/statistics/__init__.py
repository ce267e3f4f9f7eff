"""Intervals, paired tests, power and calibration: pure functions over scores, seeded and vectorised."""

from .calibration import calibration, selective_accuracy
from .intervals import (
    Interval,
    bootstrap_interval,
    ratio_interval,
    score_interval,
    sums_interval,
    wilson_interval,
)
from .paired import Repeats, holm, mcnemar_exact, paired_bootstrap, paired_permutation, repeats
from .power import design_effect, detectable, power_of, questions_needed

__all__ = [
    "Interval",
    "Repeats",
    "bootstrap_interval",
    "calibration",
    "design_effect",
    "detectable",
    "holm",
    "mcnemar_exact",
    "paired_bootstrap",
    "paired_permutation",
    "power_of",
    "questions_needed",
    "ratio_interval",
    "repeats",
    "score_interval",
    "selective_accuracy",
    "sums_interval",
    "wilson_interval",
]
