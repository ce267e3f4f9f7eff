"""Intervals and tests agree with SciPy, with published values and with simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medkit.evaluation.statistics import (
    bootstrap_interval,
    mcnemar_exact,
    paired_bootstrap,
    paired_permutation,
    score_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "count"), [(0, 10), (1, 10), (5, 10), (81, 263), (40, 40), (999, 1000)]
)
def test_wilson_equals_scipy(successes, count):
    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_equals_the_published_example():
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I: 81 of 263
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_takes_arrays_and_knows_nothing_of_nothing():
    low, high = wilson_interval(np.array([0, 5, 10, 0]), np.array([10, 10, 10, 0]))
    assert low.shape == (4,)
    assert low[0] == 0.0 and high[2] == 1.0
    assert (low[3], high[3]) == (0.0, 1.0)


def test_bootstrap_is_seeded_and_near_scipy_for_independent_values():
    values = np.random.default_rng(1).binomial(1, 0.7, 400).astype(float)
    first = bootstrap_interval(values, seed=3)
    assert first == bootstrap_interval(values, seed=3)
    assert first != bootstrap_interval(values, seed=4)
    reference = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(0), n_resamples=4000
    )
    assert first.value == values.mean()
    assert first.low == pytest.approx(reference.confidence_interval.low, abs=0.008)
    assert first.high == pytest.approx(reference.confidence_interval.high, abs=0.008)


def test_clusters_widen_the_interval():
    per_group = np.random.default_rng(2).binomial(1, 0.5, 100).astype(float)
    values, groups = np.repeat(per_group, 9), np.repeat(np.arange(100), 9)
    clustered, plain = bootstrap_interval(values, groups.tolist()), bootstrap_interval(values)
    assert clustered.value == plain.value
    assert (clustered.high - clustered.low) / (plain.high - plain.low) == pytest.approx(3.0, rel=0.15)


def test_the_mean_weighs_questions_not_groups():
    assert bootstrap_interval([1, 1, 1, 0], ["a", "a", "a", "b"]).value == 0.75


def test_group_names_may_be_anything_in_any_order():
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert bootstrap_interval(values, ["x", "y", "x", "z", "y", "w"]) == bootstrap_interval(
        values, [5, 7, 5, 1, 7, 2]
    )


def test_equal_scores_get_wilsons_interval_over_groups():
    assert bootstrap_interval([1.0] * 40).low == 1.0
    interval = score_interval([1.0] * 40)
    assert (interval.value, round(interval.low, 3), interval.high) == (1.0, 0.912, 1.0)
    clustered = score_interval([0.0] * 40, [index // 4 for index in range(40)])
    assert (clustered.value, clustered.low, round(clustered.high, 3)) == (0.0, 0.0, 0.278)


def test_one_group_tells_nothing_about_spread():
    interval = score_interval([1.0, 0.0, 1.0, 1.0], ["a"] * 4)
    assert interval.value == 0.75
    assert interval.high - interval.low > 0.7


def test_intervals_refuse_nothing_and_unequal_lengths():
    with pytest.raises(ValueError, match="at least one value"):
        score_interval([])
    with pytest.raises(ValueError, match="2 for 3"):
        bootstrap_interval([1, 0, 1], ["a", "b"])
    with pytest.raises(ValueError, match="equal lengths, got 2 and 3"):
        paired_bootstrap([0, 1], [0, 1, 1])


def test_paired_difference_and_its_interval():
    rng = np.random.default_rng(5)
    before = rng.binomial(1, 0.4, 600)
    after = np.where(rng.random(600) < 0.5, 1, before)
    difference = paired_bootstrap(before, after, np.repeat(np.arange(200), 3).tolist())
    assert difference.value == pytest.approx((after - before).mean())
    assert 0.2 < difference.low < difference.value < difference.high < 0.4


def test_no_change_at_all_is_not_claimed_to_be_exactly_none():
    interval = paired_bootstrap([1] * 40, [1] * 40)
    assert (interval.value, round(interval.low, 3), round(interval.high, 3)) == (0.0, -0.088, 0.088)
    every = paired_bootstrap([0] * 40, [1] * 40)
    assert (every.value, round(every.low, 3), every.high) == (1.0, 0.912, 1.0)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(0, 0, 1.0), (5, 5, 1.0), (6, 0, 0.03125), (0, 6, 0.03125), (9, 1, 0.021484375)],
)
def test_mcnemar_values(wins, losses, expected):
    assert mcnemar_exact(wins, losses) == pytest.approx(expected, abs=1e-12)


def test_permutation_values():
    assert paired_permutation([0.0] * 6, [0.5] * 6, resamples=20_000) == pytest.approx(2 / 64, abs=0.005)
    assert paired_permutation([0.5] * 6, [0.5] * 6) == 1.0
    # six questions about one image are one observation
    assert paired_permutation([0.0] * 6, [0.5] * 6, ["a"] * 6) == 1.0


def _coverage(simulations: int, groups: int, resamples: int) -> float:
    rng = np.random.default_rng(11)
    inside = 0
    for simulation in range(simulations):
        # Beta(3.5, 1.5) per image: mean 0.7, correlation within an image 1/6
        values = rng.binomial(1, np.repeat(rng.beta(3.5, 1.5, groups), 4))
        interval = bootstrap_interval(
            values, np.repeat(np.arange(groups), 4).tolist(), resamples=resamples, seed=simulation
        )
        inside += interval.low <= 0.7 <= interval.high
    return inside / simulations


@pytest.mark.parametrize("groups", [20, 100])
def test_coverage(groups):
    assert 0.93 <= _coverage(simulations=2000, groups=groups, resamples=2000) <= 0.97


def test_groups_of_one_mean_do_not_claim_to_be_certain():
    """Two images, one right and one wrong answer about each: no resample differs, and much is unknown."""
    found = score_interval([1.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b"])
    low, high = wilson_interval(1, 2)
    assert (found.value, found.low, found.high) == (
        0.5,
        pytest.approx(float(low)),
        pytest.approx(float(high)),
    )
